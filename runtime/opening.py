"""What a command line names, opened: sources with names, and sinks for them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from runtime.capture import Feed
from runtime.delivery import Target
from runtime.errors import SinkError, SourceError
from runtime.sinks import open_sink
from runtime.sinks.video import VIDEO_SUFFIXES
from runtime.sources import open_source
from runtime.uris import address_of, redacted
from runtime.view import View

_NAMED = re.compile(r"([A-Za-z]\w*(?:-\w+)*)=(.+)", re.DOTALL)
_FOR_EACH = "{source}"


def open_feeds(
    texts: Sequence[str], *, size_px: tuple[int, int] | None = None, fps: float | None = None
) -> list[Feed]:
    """Open the sources of a command line.

    Args:
        texts: each a URI as `open_source` takes it, or NAME=URI.
        size_px: (height, width) asked of cameras.
        fps: rate asked of cameras.

    Returns:
        One feed each. A single source has its name only if it was given one.

    Raises:
        SourceError: a source does not open, two have one name, or a live one is beside a file;
            then none stays open.
    """
    named = [_named(text) for text in texts]
    names = [name or _short_name(uri) for name, uri in named]
    if len(names) == 1:
        names = [named[0][0]]
    for name in names:
        if names.count(name) > 1:
            raise SourceError(
                f"{names.count(name)} sources are called {name}",
                "a name of its own for each",
                "name them: --source left=URI --source right=URI",
            )
    feeds: list[Feed] = []
    try:
        for name, (_, uri) in zip(names, named, strict=True):
            opener = partial(open_source, uri, size_px=size_px, fps=fps)
            feeds.append(Feed(opener(), name, opener))
        _refuse_live_beside_recorded(feeds)
    except BaseException:
        for feed in feeds:
            feed.source.close()
        raise
    return feeds


def open_targets(
    uris: Sequence[str],
    feeds: Sequence[Feed],
    *,
    grid: bool,
    fps: float | None = None,
    view: View | None = None,
) -> list[Target]:
    """Open the sinks of a command line.

    Args:
        uris: each as `open_sink` takes it. With several feeds and no grid, one that holds
            `{source}` is opened once for each of them.
        feeds: where the frames come from.
        grid: several feeds come as one picture.
        fps: rate of videos; None: the feeds'.
        view: what a window shows at first.

    Raises:
        SinkError: one does not open, two write to one file, or it is not said whose frames a sink
            gets; then none stays open.
    """
    live = any(feed.source.live for feed in feeds)
    targets: list[Target] = []
    opened: set[str] = set()
    try:
        for uri in uris:
            for name, address in _addresses(uri, feeds, grid):
                if address in opened and address != "none":
                    raise _named_twice(address)
                opened.add(address)
                shown = [feed for feed in feeds if name in (None, feed.name)]
                sink = open_sink(
                    address,
                    fps=fps or _rate_of(shown, live),
                    live=live,
                    view=view,
                    sound_left_out=any(getattr(feed.source, "has_sound", False) for feed in shown),
                )
                targets.append(Target(sink, name))
    except BaseException:
        for target in targets:
            target.sink.close(keep=False)
        raise
    return targets


def refuse_overwriting(
    feeds: Sequence[Feed],
    sinks: Sequence[str],
    *,
    grid: bool,
    model: Path | None = None,
    stats: Path | None = None,
) -> None:
    """Keep a user's own pictures and videos: results never take the place of a source.

    To be asked when the sources are open, which tell their files in an attribute `paths` (and
    what a folder sink will call their pictures in `names`), and before a sink is opened.

    Args:
        feeds: where the frames come from.
        sinks: as `open_targets` takes them.
        grid: several feeds come as one picture.
        model: the file of the network.
        stats: where the statistics go.

    Raises:
        SinkError: a sink or the statistics would write over a source, the statistics over the
            model or a sink's file, or it is not said whose frames a sink gets.
    """
    sources = {
        _identity(path): path for feed in feeds for path in getattr(feed.source, "paths", ())
    }
    one_of = {path.parent: path for path in reversed(sources.values())}
    in_folders = {_identity(folder): path for folder, path in one_of.items()}
    results: dict[_Identity, str] = {}
    for uri in sinks:
        for name, address in _addresses(uri, feeds, grid):
            place = _place(address)
            if place is None:
                continue
            if _identity(place) in results:
                raise _named_twice(address)
            results[_identity(place)] = address
            for path in _written(place, [feed for feed in feeds if name in (None, feed.name)]):
                _refuse(sources, path, f"the sink {redacted(address)}", "--sink")
            # Whatever a folder's pictures are called, they are kept apart from a source's.
            _refuse(in_folders, place, f"the sink {redacted(address)}", "--sink")
    if stats is None:
        return
    _refuse(sources, stats, f"the statistics {stats}", "--stats")
    if model is not None and _identity(stats) == _identity(model):
        raise SinkError(
            f"the statistics {stats} would write over the model",
            "a file of their own",
            "name another one with --stats",
        )
    if (sink := results.get(_identity(stats))) is not None:
        raise SinkError(
            f"the statistics {stats} and the sink {redacted(sink)} are one file",
            "a file for each",
            "name another one with --stats",
        )


_Identity: TypeAlias = "tuple[int, int] | str"


def _identity(path: Path) -> _Identity:
    """What a file is known by, whatever it is called; where there is none yet, its real path."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _place(address: str) -> Path | None:
    """The file or folder that a sink of this address writes, as `open_sink` reads it."""
    scheme, mark, rest = address.partition("://")
    if (
        (mark and scheme.lower() != "file")
        or address == "none"
        or address.partition("?")[0] == "-"
    ):
        return None
    name = rest if mark else address
    without_options = Path(re.sub(r"\?\w+=[^/?]*$", "", name))
    if without_options.suffix.lower() in VIDEO_SUFFIXES and not without_options.is_dir():
        return without_options
    return Path(name)


def _written(place: Path, feeds: Sequence[Feed]) -> Iterator[Path]:
    """What a sink of these feeds writes: the file, or the pictures whose names are known."""
    yield place
    for feed in feeds if place.is_dir() else ():
        for name in getattr(feed.source, "names", ()):
            yield place / name


def _refuse(sources: Mapping[_Identity, Path], path: Path, what: str, option: str) -> None:
    source = sources.get(_identity(path))
    if source is not None:
        raise SinkError(
            f"{what} would write over the source {source}",
            "another file or folder",
            f"name one with {option}",
        )


def _named_twice(address: str) -> SinkError:
    return SinkError(
        f"the sink {redacted(address)} was named twice",
        "another one for each",
        f"with several sources, write {_FOR_EACH} into its name",
    )


def _refuse_live_beside_recorded(feeds: Sequence[Feed]) -> None:
    if len({feed.source.live for feed in feeds}) > 1:
        recorded = [feed.name for feed in feeds if not feed.source.live]
        raise SourceError(
            f"a live source beside the file {recorded[0]}, which would be over in a moment",
            "all live, or all files",
            "play the file in its own time: ffmpeg -re -i FILE -f yuv4mpegpipe - | "
            "p2p-live ... --source 'NAME=-?live=1'",
        )


def _rate_of(feeds: Sequence[Feed], live: bool) -> float | None:
    """Pictures a second of several feeds in one sink: each frame of files makes one; live ones
    are shown at the pace of the fastest."""
    rates = [feed.source.fps for feed in feeds if feed.source.fps]
    if not rates:
        return None
    return max(rates) if live else sum(rates)


def _addresses(uri: str, feeds: Sequence[Feed], grid: bool) -> list[tuple[str | None, str]]:
    """For each sink that `uri` stands for: the feed whose frames it gets, and its address."""
    if len(feeds) == 1 or grid or uri == "none":
        return [(None, uri.replace(_FOR_EACH, feeds[0].name or "source"))]
    if _FOR_EACH in uri:
        return [(feed.name, uri.replace(_FOR_EACH, feed.name)) for feed in feeds]
    raise SinkError(
        f"{len(feeds)} sources and one sink {redacted(uri)}",
        f"one picture of all, or {_FOR_EACH} in the sink's name for one of each",
        f"add --grid, or name it like --sink out-{_FOR_EACH}.mp4",
    )


def _named(text: str) -> tuple[str, str]:
    """Name (empty for none) and URI of NAME=URI or URI."""
    match = _NAMED.fullmatch(text)
    if match is None or Path(text).exists():
        return "", text
    return match[1], match[2]


def _short_name(uri: str) -> str:
    """A word for a source that was given none: `video0`, `garden`, `clip`."""
    if uri.isdecimal():
        return f"video{uri}"
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if separator and scheme in ("rtsp", "rtsps", "http", "https"):
        address = address_of(uri)
        return (address.host.lower() if address else scheme).partition(".")[0]
    if separator and scheme != "file":
        number = re.match(r"\d+", rest)
        return scheme + (number[0] if number else "")
    return redacted(Path(rest if separator else uri.partition("?")[0]).stem) or "source"
