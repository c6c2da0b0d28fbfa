"""A model measured on a video: how much its pictures flicker where the input stands still."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from export.eval_report import Evaluation, Example, VideoRow, best_median_worst, change_example
from export.ui import Ui
from export.verify import Draw, Image, Size
from runtime.errors import SourceError
from runtime.frame import resized
from runtime.images import IMAGE_SUFFIXES
from runtime.sources.video import VideoSource
from trainer.flicker import Change, change_between, flicker_of, still_pixels

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")
VIDEO_FRAMES = 200
"""Of a video, where no count is asked for."""
FEW_STILL = 0.1
"""Share of still pixels below which flicker says little."""


def is_video(data: str) -> bool:
    """Whether DATA of `p2p-eval` names a video, there or not, and no folder of pairs."""
    path = Path(data)
    return path.is_file() or (path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir())


def open_video(path: Path) -> VideoSource:
    """The video at `path`; the caller closes it.

    Raises:
        SourceError: there is none, or it is one picture.
    """
    if not path.is_file():
        raise SourceError(f"no such video: {path}", "a video file", "check the name")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(
            f"{path} is one picture",
            "a folder of pairs, a video file, or scenes",
            "name the folder that it is in",
        )
    return VideoSource(path)


def evaluate_video(
    video: VideoSource,
    path: Path,
    *,
    name: str,
    draw: Draw,
    size_px: Size,
    count: int | None,
    ui: Ui,
) -> Evaluation:
    """Measure how much a model's pictures change from frame to frame where the video does not.

    Args:
        video: at its first frame.
        path: of the video; it is read a second time for the examples.
        name: of the model, for the report.
        draw: the model, at `size_px` (height, width).
        size_px: that frames are resized to.
        count: at most so many frames; None: `VIDEO_FRAMES`.
        ui: is told how far it is.

    Raises:
        SourceError: fewer than two frames, asked for or there, or a damaged video.
    """
    wanted = count or VIDEO_FRAMES
    if wanted < 2:
        raise SourceError(
            f"--count {wanted} with {path}", "2 frames or more: flicker is change", "raise --count"
        )
    known = min(wanted, video.frame_count or wanted)
    ui.say(f"{video.description}; the first {known} frames, {size_px[1]}x{size_px[0]}")
    changes: list[Change] = []
    before: tuple[Image, Image] | None = None
    for _ in ui.track(range(known), "drawing and comparing"):
        frame = video.read()
        if frame is None:
            break
        now = _drawn(draw, size_px, frame.image)
        if before is not None:
            changes.append(change_between((before[0], now[0]), (before[1], now[1])))
        before = now
    if video.warning:
        ui.say(video.warning)
    if not changes:
        raise SourceError(
            f"{path} holds one frame", "2 or more: flicker is change", "name another video"
        )
    found = flicker_of(changes)
    rows = {
        "model": VideoRow(found.flicker, found.still_share, found.changes),
        "identity": VideoRow(found.input_change, found.still_share, found.changes),
    }
    notes = []
    if found.flicker is None:
        notes.append("Nothing in this video stands still: its flicker cannot be measured.")
    elif found.still_share < FEW_STILL:
        notes.append(
            f"Only {100 * found.still_share:.1f} % of the pixels stand still: a video of a fixed "
            "camera says more."
        )
    return Evaluation(
        name,
        f"{video.description}; {found.changes + 1} frames, {size_px[1]}x{size_px[0]}",
        rows,
        notes,
        _examples(draw, size_px, path, changes),
    )


def _drawn(draw: Draw, size_px: Size, image: Image) -> tuple[Image, Image]:
    """(input, output) at the size that the model works at."""
    frame = resized(image, size_px)
    return frame, draw(frame)


def _examples(draw: Draw, size_px: Size, path: Path, changes: Sequence[Change]) -> list[Example]:
    """The steadiest, the median and the worst change; the video is read once more for them."""
    measured = [(number, c.flicker) for number, c in enumerate(changes) if c.flicker is not None]
    if not measured:
        return []
    chosen = best_median_worst([flicker for _, flicker in measured])
    titles = {
        number: f"{word}: frame {number + 1}, flicker {flicker:.2f} grey levels"
        for word, (number, flicker) in ((word, measured[place]) for word, place in chosen)
    }
    examples: dict[int, Example] = {}
    before: Image | None = None
    with closing(VideoSource(path)) as video:
        for number in range(-1, max(titles) + 1):  # change 0 leads from frame 0 to frame 1
            frame = video.read()
            if frame is None:
                break
            if before is not None and number in titles:
                (source_before, drawn_before) = _drawn(draw, size_px, before)
                source, drawn = _drawn(draw, size_px, frame.image)
                still = still_pixels(source_before, source)
                examples[number] = change_example(
                    titles[number], source, (drawn_before, drawn), still
                )
            before = frame.image
    return [examples[number] for number in titles if number in examples]
