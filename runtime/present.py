"""What is shown of a translated frame: smoothed, in a grid, in a view."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from runtime.frame import Translated
from runtime.grid import Grid
from runtime.smooth import Smoother
from runtime.view import View

Views: TypeAlias = "View | Callable[[str], View]"
"""One view of all frames, or what gives the view of each source by its name: what is drawn onto a
picture may keep count of what it saw. Of a grid there is one picture, and its name is empty."""


class Presenter:
    """Brings translated frames to the form in which the sinks get them. One thread at a time.

    Args:
        view: what of a frame is shown, for all or for each source; None: the translation as it is.
        grid: several sources come as one picture; None: each by itself.
        smooth: strength of the temporal smoothing, 0 to 1; None: none.
    """

    def __init__(
        self, view: Views | None = None, grid: Grid | None = None, smooth: float | None = None
    ) -> None:
        self._view = view
        self._grid = grid
        self._smooth = smooth
        self._smoothers: dict[str, Smoother] = {}

    @property
    def one_picture(self) -> bool:
        """Whether several sources come as one picture."""
        return self._grid is not None

    def __call__(self, frame: Translated) -> Translated:
        """The frame as it is to be shown; `image` is the caller's, and may be `translated`."""
        if self._smooth is not None and not frame.repeated:
            if frame.source not in self._smoothers:
                self._smoothers[frame.source] = Smoother(self._smooth)
            assert frame.original is not None
            frame.translated = frame.image = self._smoothers[frame.source].smooth(
                frame.original, frame.image, frame.captured_at_ns
            )
        if self._grid is not None:
            one = frame
            frame = self._grid.update(one)
            frame.source, frame.repeated = one.source, one.repeated
            frame.captured_at_ns = one.captured_at_ns  # its age is the one that counts now
        if self._view is not None:
            view = self._view
            if not isinstance(view, View):
                view = view("" if self._grid is not None else frame.source)
            frame.image = view.picture(frame)
        return frame
