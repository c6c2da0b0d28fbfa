"""Folders of fixed cameras' pictures, with what does not belong there mixed in on purpose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import UserError
from trainer.images import Image
from trainer.layouts import PairFile, photos_in

GOOD, MOVED = "its own", "its own, moved by up to 3 % each way and 1 degree"
FOREIGN = "other cameras, by day and by night"
BLURRED = "blurred (Gaussian, 0.6 and 1.2 % of the width)"
EMPTY = "black or washed out"
CUT = "cut short"
BLENDED = "day and night blended, 30 to 50 % day"
TWICE = "the same file twice"
OWN = (GOOD, MOVED)
KINDS = (*OWN, FOREIGN, BLURRED, EMPTY, CUT, BLENDED, TWICE)
LEAST = 4
"""Days and nights of a camera that can be mixed."""
MOVED_EVERY = 5
LARGEST_SHIFT = 0.03
"""As a part of the width."""
BLURS = (0.006, 0.012)
BLENDS = (0.5, 0.4, 0.3)
_NAME = re.compile(r"(.*?)_?(\d{8}_\d{6})_to_(\d{8}_\d{6})")
_DATE = "%Y%m%d_%H%M%S"
_SPLITS = ("train", "val", "test")
Motion = NDArray[np.float64]
"""[3, 3], of pixels."""


@dataclass
class Camera:
    """One fixed camera's pictures, uint8 [H, W, 3] BGR, by their dates."""

    name: str
    days: dict[str, Image] = field(default_factory=dict)
    nights: dict[str, Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Put:
    """A picture that was put into a folder."""

    kind: str
    """One of `KINDS`."""
    half: str
    """`day`, `night` or `neither`."""
    motion: Motion = field(default_factory=lambda: np.eye(3))
    """Where a pixel of the camera's picture went."""
    copy_of: str | None = None
    """The file that this one repeats."""


def cameras_in(folder: Path) -> list[Camera]:
    """Take pairs apart.

    Raises:
        UserError: fewer than three cameras with `LEAST` days and nights.
        DataError: no pictures, or a damaged one.
    """
    cameras: dict[str, Camera] = {}
    for path in photos_in(folder).files:
        if not (found := _NAME.match(path.stem)):
            continue
        inside = [part for part in path.relative_to(folder).parts[:-1] if part not in _SPLITS]
        name = "_".join([*inside, *filter(None, [found[1]])]) or folder.name
        camera = cameras.setdefault(name, Camera(name))
        day, night = PairFile(path, None).read("AtoB")
        camera.days.setdefault(found[2], day)
        camera.nights.setdefault(found[3], night)
    useful = [c for _, c in sorted(cameras.items()) if min(len(c.days), len(c.nights)) >= LEAST]
    if len(useful) < 3:
        raise UserError(
            f"{folder} has {len(useful)} cameras with {LEAST} days and {LEAST} nights",
            "three or more, in pairs named CAMERA_20151102_060150_to_20151102_003122.jpg",
            "name a folder that holds what p2p-pairs timelapse wrote for several cameras",
        )
    return useful


class Mixer:
    """Writes one camera's folder of mixed pictures, and knows what each is."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.put: dict[str, Put] = {}
        self._folder = folder
        self._random = np.random.default_rng(seed)
        self._taken: set[datetime] = set()
        folder.mkdir(parents=True)

    def mix(self, cameras: Sequence[Camera], own: int) -> None:
        """Fill the folder of `cameras[own]`, with pictures of the next two as strangers."""
        camera = cameras[own]
        days, nights = sorted(camera.days.items()), sorted(camera.nights.items())
        for half, pictures in (("day", days), ("night", nights)):
            for number, (date, image) in enumerate(pictures):
                if number % MOVED_EVERY == 2:
                    self._write_moved(date, image, half)
                else:
                    self._write(date, image, GOOD, half)
        others = [cameras[(own + step) % len(cameras)] for step in (1, 2)]
        for other, count in zip(others, (max(2, len(days) // 6), 1), strict=True):
            for half, stock in (("day", other.days), ("night", other.nights)):
                for date, image in sorted(stock.items())[:count]:
                    self._write(date, image, FOREIGN, half)
        for half, pictures in (("day", days), ("night", nights)):
            for number, sigma in enumerate(BLURS):
                date, image = pictures[(3 + 2 * number) % len(pictures)]
                blurred = cv2.GaussianBlur(image, (0, 0), sigma * image.shape[1])
                self._write(date, np.asarray(blurred, np.uint8), BLURRED, half)
            date, image = pictures[1]
            self._write(date, image, TWICE, half, copy_of=f"cam_{date}.jpg")
        (day_date, day), (night_date, night) = days[0], nights[0]
        for level in (0, 6):
            noise = self._random.normal(level, 2, night.shape)
            self._write(night_date, _levels(noise), EMPTY, "night")
        self._write(day_date, _levels(0.15 * day + 225), EMPTY, "day")
        path = self._write(day_date, day, CUT, "day")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        for number, part in enumerate(BLENDS, 1):
            date, light = days[number % len(days)]
            dark = nights[(number + 1) % len(nights)][1]
            if light.shape == dark.shape:
                self._write(date, _levels(part * light + (1 - part) * dark), BLENDED, "neither")

    def _write_moved(self, date: str, image: Image, half: str) -> None:
        height, width = image.shape[:2]
        turn_deg = self._random.choice([0.0, 1.0, -1.0])
        motion = np.eye(3)
        motion[:2] = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn_deg, 1.0)
        motion[:2, 2] += self._random.uniform(-LARGEST_SHIFT, LARGEST_SHIFT, 2) * width
        moved = cv2.warpAffine(
            image,
            motion[:2],
            (width, height),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        self._write(date, np.asarray(moved, np.uint8), MOVED, half, motion)

    def _write(
        self,
        date: str,
        image: Image,
        kind: str,
        half: str,
        motion: Motion | None = None,
        copy_of: str | None = None,
    ) -> Path:
        """At its own date, or at the next free minute after it."""
        moment = datetime.strptime(date, _DATE)
        while moment in self._taken:
            moment += timedelta(minutes=1)
        self._taken.add(moment)
        path = self._folder / f"cam_{moment:{_DATE}}.jpg"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        self.put[path.name] = Put(kind, half, motion if motion is not None else np.eye(3), copy_of)
        return path


def _levels(values: NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
