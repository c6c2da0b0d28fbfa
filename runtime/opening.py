"""What a command line names, opened: sources with names, and sinks for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from runtime.capture import Feed
from runtime.delivery import Target
from runtime.errors import SinkError, SourceError
from runtime.sinks import open_sink
from runtime.sources import open_source
from runtime.uris import redacted
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
                    raise SinkError(
                        f"the sink {redacted(address)} was named twice",
                        "another one for each",
                        f"with several sources, write {_FOR_EACH} into its name",
                    )
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


def refuse_overwriting(sources: Sequence[str], sinks: Sequence[str]) -> None:
    """Keep a user's own pictures and videos: results never take the place of a source.

    Raises:
        SinkError: a sink would write over a source.
    """
    for source_text in sources:
        source = Path(_named(source_text)[1])
        for uri in sinks:
            sink = Path(uri)
            if not (source.exists() and sink.exists()):
                continue
            if sink.samefile(source) or (source.is_file() and sink.samefile(source.parent)):
                raise SinkError(
                    f"the sink {uri} would write over the source {source}",
                    "another file or folder",
                    "name one with --sink",
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
    if separator and scheme in ("rtsp", "rtsps", "http", "https"):
        return (urlsplit(uri).hostname or scheme).partition(".")[0]
    if separator and scheme != "file":
        number = re.match(r"\d+", rest)
        return scheme + (number[0] if number else "")
    return Path(rest if separator else uri.partition("?")[0]).stem or "source"
