"""The source that all rows of a benchmark share."""

from __future__ import annotations

from runtime.errors import SourceError
from runtime.frame import Frame
from runtime.sources import open_source


class EndlessSource:
    """A source that many runs share: starts again at its end, stays open when a run closes it.

    Raises:
        SourceError: nothing there, or it gives no frame.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._source = open_source(uri)
        self._next_index = 0
        self.live = self._source.live
        self.fps = self._source.fps
        self.size_px = self._source.size_px
        self.frame_count: int | None = None
        self.description = self._source.description
        self.warning = ""

    def read(self) -> Frame:
        """The next frame; after the last one the first."""
        frame = self._source.read()
        if frame is None:
            self._source.close()
            self._source = open_source(self._uri)
            frame = self._source.read()
        if frame is None:
            raise SourceError(f"{self._uri} gives no frame", "at least one", "name another source")
        frame.index = self._next_index
        self._next_index += 1
        return frame

    def interrupt(self) -> None:
        """Another round will follow."""

    def close(self) -> None:
        """A run is over; the source stays open."""

    def let_go(self) -> None:
        """Close the source itself."""
        self._source.close()
