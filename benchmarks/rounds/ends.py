"""Both ends of what a benchmark measures: where all frames come from, and where they go."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.rounds.source import EndlessSource
from runtime.errors import SinkError
from runtime.sinks import Sink, open_sink
from runtime.sources.synthetic import SyntheticSource
from runtime.uris import redacted

BUILTIN = "builtin"
_BUILTIN_FRAMES = 60
_BUILTIN_FPS = 30.0


@contextmanager
def opened_source(uri: str) -> Iterator[EndlessSource]:
    """The source of all rows; with `builtin` a drawn video of 640x480.

    Raises:
        SourceError: nothing there.
    """
    with tempfile.TemporaryDirectory(prefix="p2p-latency-") as folder:
        if uri == BUILTIN:
            clip = _draw_clip(Path(folder) / "drawn.mp4")
            source = EndlessSource(str(clip))
            source.description = source.description.replace(clip.name, "built-in video")
        else:
            source = EndlessSource(uri)
        try:
            yield source
        finally:
            source.let_go()


def _draw_clip(path: Path) -> Path:
    """A video as a camera's: 640x480, so that a model has to resize; real decoding costs time."""
    drawn = SyntheticSource((480, 640), frames=_BUILTIN_FRAMES)
    sink = open_sink(str(path), fps=_BUILTIN_FPS)
    while (frame := drawn.read()) is not None:
        sink.write(frame)
    sink.close()
    return path


@contextmanager
def opened_sink(uri: str, source: EndlessSource) -> Iterator[Sink]:
    """A sink whose files are written where the user would have them, and removed.

    Raises:
        SinkError: it does not open.
    """
    with ExitStack() as opened:
        name = uri.removeprefix("file://")
        if uri != "none" and "://" not in name and not name.startswith("/dev/"):
            folder = existing_folder(Path(name))
            try:
                beside = tempfile.TemporaryDirectory(prefix=".p2p-latency-", dir=folder)
            except OSError as error:
                raise SinkError(
                    f"the sink {uri} cannot be written: {folder}: {error.strerror}",
                    "a folder that may be written to",
                    "name another one, or measure with --sink none",
                ) from error
            uri = str(Path(opened.enter_context(beside)) / Path(name).name)
        windowed = uri.startswith("display:")
        sink = open_sink(uri, fps=None if windowed else source.fps, live=source.live)
        opened.callback(sink.close, keep=False)
        yield sink


def existing_folder(path: Path) -> Path:
    """The nearest of a path's parents that exists."""
    return next(parent for parent in path.absolute().parents if parent.exists())


def told_uri(uri: str) -> str:
    """A source or a sink as a result may hold it: no folder of this machine, no password."""
    name = uri.removeprefix("file://")
    if "://" in name or name.startswith("/dev/"):
        return redacted(name)
    return Path(name).name
