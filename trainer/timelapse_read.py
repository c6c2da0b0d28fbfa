"""A camera's pictures, from a folder or a video: when each was taken, and a small copy of it."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from trainer.data import SUFFIXES, Image, read_image
from trainer.errors import DataError
from trainer.timelapse_light import sharpness_of
from trainer.timelapse_register import ANALYSIS_PX, Luma

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts")
BY_EXIF, BY_NAME, BY_FILE, BY_POSITION = "EXIF", "file name", "file's own time", "position"
_SHARPNESS_PX = 512
_YMD = r"(?<!\d)((?:19|20)\d\d)[-_./]?(\d\d)[-_./]?(\d\d)"
_MOMENT = re.compile(_YMD + r"[-_. /T]*(\d\d)[-_.:h /]?(\d\d)(?:[-_.:m ]?(\d\d))?")
_DATE = re.compile(_YMD + r"(?!\d)")
_UNIX = re.compile(r"(?<!\d)(\d{10})(\d{3})?(?!\d)")
_EXIF_TAKEN, _EXIF_POINTER, _EXIF_CHANGED = 0x9003, 0x8769, 0x0132


@dataclass(frozen=True)
class Shot:
    """One picture of the camera.

    name: its path inside the source, or the frame's time in a video.
    taken_s: seconds since 1970 by the camera's clock, or since the start of the video.
    size: (height, width) in pixels as stored. luma: small copy, longer side ANALYSIS_PX at most.
    """

    name: str
    where: Path | int
    taken_s: float
    dated_by: str
    size: tuple[int, int]
    luma: Luma
    sharpness: float

    @property
    def label(self) -> str:
        """A name for files: the date, or the position in the video."""
        if self.dated_by == BY_POSITION:
            return f"{self.taken_s:010.2f}s"
        return f"{datetime.fromtimestamp(self.taken_s, timezone.utc):%Y%m%d_%H%M%S}"


def find_pictures(folder: Path) -> list[Path]:
    """Every picture in a folder and below it, hidden ones left out, sorted.

    Raises:
        DataError: there is none.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        raise DataError(
            f"no pictures in {folder}",
            f"dated pictures of one fixed camera ({', '.join(SUFFIXES)})",
            "name the folder that holds them",
        )
    return found


def read_folder(
    folder: Path, files: Sequence[Path], tick: Callable[[], object]
) -> Iterator[Shot | tuple[str, str]]:
    """Each picture as a Shot, or (name, why) where it is damaged. tick: called after each."""

    def read(path: Path) -> Shot | tuple[str, str]:
        name = path.relative_to(folder).as_posix()
        try:
            image = read_image(path)
        except DataError as error:
            return name, error.received
        taken_s, dated_by = date_of(path, name)
        return make_shot(name, path, taken_s, dated_by, image)

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for shot in pool.map(read, files):
            tick()
            yield shot


def make_shot(name: str, where: Path | int, taken_s: float, dated_by: str, image: Image) -> Shot:
    """What the analysis keeps of a picture uint8 [H, W, 3] BGR."""
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    return Shot(
        name=name,
        where=where,
        taken_s=taken_s,
        dated_by=dated_by,
        size=(image.shape[0], image.shape[1]),
        luma=_small(grey, ANALYSIS_PX),
        sharpness=sharpness_of(_small(grey, _SHARPNESS_PX)),
    )


def _small(grey: Luma, longer_px: int) -> Luma:
    height, width = grey.shape
    factor = longer_px / max(height, width)
    if factor >= 1.0:
        return grey
    size = (max(16, round(width * factor)), max(16, round(height * factor)))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


# --------------------------------------------------------------------------------- dates


def date_of(path: Path, name: str) -> tuple[float, str]:
    """(seconds since 1970 by the camera's clock, what told so) of a file.

    name: its path below the source, whose folders may hold the date.
    """
    taken = _exif_date(path)
    if taken is not None:
        return taken, BY_EXIF
    for text in (Path(name).stem, name.rsplit(".", 1)[0]):
        taken = date_in(text)
        if taken is not None:
            return taken, BY_NAME
    return path.stat().st_mtime, BY_FILE


def date_in(text: str) -> float | None:
    """Seconds since 1970 of the last date that a name holds, taken as it stands; None without.

    `20151102_060150`, `2015-11-02T06:01:50`, `2015/11/02/06-01`, `20151102` (its midnight),
    `1446444110` and `1446444110123` (Unix time in seconds and milliseconds).
    """
    for pattern in (_MOMENT, _DATE):
        for found in reversed(list(pattern.finditer(text))):
            parts = [*found.groups(), "0", "0", "0"][:6]
            year, month, day, hour, minute, second = (int(part or 0) for part in parts)
            try:
                moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
                return moment.timestamp()
            except ValueError:  # digits that are no date, like 20159999
                continue
    for found in reversed(list(_UNIX.finditer(text))):
        seconds = int(found[1])
        if 946_684_800 <= seconds < 2_000_000_000:  # the years 2000 to 2033
            return seconds + int(found[2] or 0) / 1000.0
    return None


def _exif_date(path: Path) -> float | None:
    """DateTimeOriginal of a JPEG file, else its DateTime; None where there is neither."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    start = head.find(b"Exif\0\0", 0, 4096)
    if head[:2] != b"\xff\xd8" or start < 0:
        return None
    tiff = head[start + 6 :]
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        first = _directory(tiff, struct.unpack_from(order + "I", tiff, 4)[0], order)
        inner = _directory(tiff, first[_EXIF_POINTER], order) if _EXIF_POINTER in first else {}
        place = inner.get(_EXIF_TAKEN) or first.get(_EXIF_CHANGED)
        if place is None:
            return None
        text = tiff[place : place + 19].decode("ascii")
        taken = datetime.strptime(text, "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except (struct.error, UnicodeDecodeError, ValueError):
        return None  # a broken block or a clock that was never set: the name has to tell
    return taken.timestamp()


def _directory(tiff: bytes, offset: int, order: str) -> dict[int, int]:
    """Tag -> value or offset, of one directory of a TIFF block."""
    (count,) = struct.unpack_from(order + "H", tiff, offset)
    entries: dict[int, int] = {}
    for index in range(count):
        tag, _, _, value = struct.unpack_from(order + "HHII", tiff, offset + 2 + 12 * index)
        entries[tag] = value
    return entries


# --------------------------------------------------------------------------------- video


def read_video(path: Path, every_s: float, tick: Callable[[], object]) -> Iterator[Shot]:
    """A frame each `every_s` seconds of a video. tick: called after each.

    Raises:
        DataError: no video that OpenCV decodes.
    """
    for index, taken_s, image in _frames(path, every_s):
        tick()
        yield make_shot(f"{taken_s:.2f} s", index, taken_s, BY_POSITION, image)


def count_samples(path: Path, every_s: float) -> int:
    """About how many frames `read_video` gives, by what the file says of itself."""
    video = cv2.VideoCapture(str(path))
    frames, fps = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    video.release()
    return max(1, int(frames / max(fps or 25.0, 1e-3) / every_s)) if frames > 0 else 1


def extract_frames(path: Path, every_s: float, wanted: set[int], folder: Path) -> dict[int, Path]:
    """Write the frames of these numbers as PNG into `folder`; seeking is not exact, so all is
    decoded again."""
    written: dict[int, Path] = {}
    for index, _, image in _frames(path, every_s):
        if index in wanted:
            written[index] = folder / f"{index}.png"
            if not cv2.imwrite(str(written[index]), image, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                raise OSError(f"{written[index]} could not be written")
    return written


def _frames(path: Path, every_s: float) -> Iterator[tuple[int, float, Image]]:
    video = cv2.VideoCapture(str(path))
    try:
        fps = video.get(cv2.CAP_PROP_FPS) or 25.0
        step = max(1, round(fps * every_s))
        index = 0
        while video.grab():
            if index % step == 0:
                came, image = video.retrieve()
                if came:
                    yield index, index / fps, np.asarray(image, dtype=np.uint8)
            index += 1
    finally:
        video.release()
    if index == 0:
        raise DataError(
            f"{path} gives no frame",
            f"a video that OpenCV decodes ({', '.join(VIDEO_SUFFIXES)}), or a folder of pictures",
            "convert it, e.g. with ffmpeg -i IN -c:v libx264 OUT.mp4",
        )
