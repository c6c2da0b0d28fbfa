"""What a V4L2 camera offers, asked of its driver by ioctl, and what to take of it.

The structures and numbers are those of the kernel's `linux/videodev2.h`; they are the same on
every 64-bit architecture that this project runs on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Kernel UAPI, asm-generic/ioctl.h: direction, size of the argument, the letter 'V', number.
_READ, _READ_WRITE = 2, 3


def _ioctl(direction: int, number: int, size_bytes: int) -> int:
    return direction << 30 | size_bytes << 16 | ord("V") << 8 | number


# struct v4l2_capability: driver, card, bus_info, version, capabilities, device_caps, reserved.
_CAPABILITY = struct.Struct("=16s32s32sIII12x")
# struct v4l2_fmtdesc: index, type, flags, description, pixelformat, mbus_code, reserved.
_FMTDESC = struct.Struct("=III32sI4x12x")
# struct v4l2_frmsizeenum: index, pixel_format, type, then width and height, or the six numbers
# min_width, max_width, step_width, min_height, max_height, step_height; reserved.
_FRMSIZEENUM = struct.Struct("=III6I8x")
# struct v4l2_frmivalenum: index, pixel_format, width, height, type, then numerator and
# denominator of the interval, or of its minimum, maximum and step; reserved.
_FRMIVALENUM = struct.Struct("=IIIII6I8x")
# struct v4l2_format: type, then a union of 200 bytes that is aligned as a pointer.
_FORMAT_BYTES = 200 + 2 * 4 if struct.calcsize("P") == 8 else 200 + 4

QUERYCAP = _ioctl(_READ, 0, _CAPABILITY.size)
ENUM_FMT = _ioctl(_READ_WRITE, 2, _FMTDESC.size)
G_FMT = _ioctl(_READ_WRITE, 4, _FORMAT_BYTES)
S_FMT = _ioctl(_READ_WRITE, 5, _FORMAT_BYTES)
ENUM_FRAMESIZES = _ioctl(_READ_WRITE, 74, _FRMSIZEENUM.size)
ENUM_FRAMEINTERVALS = _ioctl(_READ_WRITE, 75, _FRMIVALENUM.size)

_CAP_VIDEO_CAPTURE, _CAP_VIDEO_CAPTURE_MPLANE = 0x1, 0x1000
_CAP_DEVICE_CAPS = 0x80000000
_BUF_TYPE_CAPTURE, _BUF_TYPE_CAPTURE_MPLANE = 1, 9
_DISCRETE = 1
_FLAG_EMULATED = 0x2

_MOST = 64
"""No camera lists more formats, sizes or rates; a broken driver would never end."""

RAW_FORMATS = ("YUYV", "UYVY", "NV12", "NV21", "YU12", "YV12", "BGR3", "RGB3", "GREY")
"""Uncompressed formats that OpenCV turns into BGR."""
COMPRESSED_FORMATS = ("MJPG", "JPEG")

DEFAULT_SIZE_PX = (480, 640)
_RATE_SLACK = 0.99
"""29.97 fps is what was meant by 30."""


@dataclass(frozen=True)
class Mode:
    """One format in one size, or in a range of sizes."""

    fourcc: str
    least_px: tuple[int, int]
    """(height, width)."""
    most_px: tuple[int, int]
    """As `least_px` for a single size."""
    step_px: tuple[int, int] = (1, 1)
    rates: tuple[float, ...] = ()
    """Frames per second; for a range its ends; empty where the driver does not tell."""
    any_rate: bool = False
    """Everything between the ends of `rates`."""

    def nearest_px(self, size_px: tuple[int, int]) -> tuple[int, int]:
        """The size of this mode that is nearest to `size_px`."""
        height, width = (
            min(most, least + round((min(max(asked, least), most) - least) / step) * step)
            for asked, least, most, step in zip(
                size_px, self.least_px, self.most_px, self.step_px, strict=True
            )
        )
        return height, width

    def nearest_fps(self, fps: float | None) -> float | None:
        """The lowest rate that reaches `fps`, else the highest; the highest for None.

        None where the driver does not tell its rates.
        """
        if not self.rates:
            return None
        highest = max(self.rates)
        if fps is None or highest < fps * _RATE_SLACK:
            return highest
        if self.any_rate:
            return min(max(fps, min(self.rates)), highest)
        return min(rate for rate in self.rates if rate >= fps * _RATE_SLACK)


@dataclass(frozen=True)
class Device:
    """A camera as its driver describes it."""

    card: str
    """Its model."""
    captures: bool
    """It gives pictures: a camera has further nodes that do not."""
    modes: tuple[Mode, ...]


@dataclass(frozen=True)
class Choice:
    """The format, size and rate to ask for."""

    fourcc: str
    size_px: tuple[int, int]
    fps: float | None


def choose(
    modes: Sequence[Mode], size_px: tuple[int, int] | None, fps: float | None
) -> Choice | None:
    """What to take of what a camera offers.

    The nearest size comes first. In that size raw pictures are taken where they come as often as
    was asked, or, with nothing asked, as often as compressed ones: they need no decoder and have
    no blocks. Else the camera compresses (MJPG): large raw pictures do not fit through USB.

    Args:
        modes: what the driver offers.
        size_px: (height, width) asked; None: 480 x 640.
        fps: rate asked; None: the highest.

    Returns:
        None where the camera offers nothing that OpenCV can decode, or tells nothing.
    """
    known = [mode for mode in modes if mode.fourcc in RAW_FORMATS + COMPRESSED_FORMATS]
    if not known:
        return None
    wanted = size_px or DEFAULT_SIZE_PX

    def distance(size: tuple[int, int]) -> tuple[int, int]:
        return abs(size[0] - wanted[0]) + abs(size[1] - wanted[1]), -size[0] * size[1]

    best_px = min((mode.nearest_px(wanted) for mode in known), key=distance)
    there = [mode for mode in known if mode.nearest_px(wanted) == best_px]
    raw = _fastest(there, RAW_FORMATS, fps)
    compressed = _fastest(there, COMPRESSED_FORMATS, fps)
    if raw is None or compressed is None:
        taken = raw or compressed
    else:
        needed = min(fps or float("inf"), _reach(compressed))
        taken = raw if _reach(raw) >= needed * _RATE_SLACK else compressed
    assert taken is not None
    return Choice(taken.fourcc, best_px, taken.nearest_fps(fps))


def _reach(mode: Mode) -> float:
    return max(mode.rates, default=0.0)


def _fastest(modes: Sequence[Mode], fourccs: Sequence[str], fps: float | None) -> Mode | None:
    """The mode of these formats that reaches the rate; the first of the formats wins a draw."""
    candidates = [mode for mode in modes if mode.fourcc in fourccs]
    if not candidates:
        return None
    limit = fps or float("inf")
    return max(
        candidates,
        key=lambda mode: (min(_reach(mode), limit), -fourccs.index(mode.fourcc)),
    )


def ask(node: Path) -> Device:
    """Ask a driver what its camera is and what it offers; the camera may be in use meanwhile.

    Raises:
        OSError: no V4L2 device, gone, or not to be opened.
    """
    descriptor = os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        told = bytearray(_CAPABILITY.size)
        fcntl.ioctl(descriptor, QUERYCAP, told)
        _, card, _, _, capabilities, of_node = _CAPABILITY.unpack(told)
        if capabilities & _CAP_DEVICE_CAPS:
            capabilities = of_node
        model = card.split(b"\0")[0].decode(errors="replace").strip()
        if capabilities & _CAP_VIDEO_CAPTURE:
            kind = _BUF_TYPE_CAPTURE
        elif capabilities & _CAP_VIDEO_CAPTURE_MPLANE:
            kind = _BUF_TYPE_CAPTURE_MPLANE
        else:
            return Device(model, False, ())
        _check_free(descriptor, kind)
        return Device(model, True, tuple(_modes(descriptor, kind)))
    finally:
        os.close(descriptor)


def _check_free(descriptor: int, kind: int) -> None:
    """Set the format that is set already: refused with EBUSY while another program streams."""
    fmt = bytearray(_FORMAT_BYTES)
    struct.pack_into("=I", fmt, 0, kind)
    try:
        fcntl.ioctl(descriptor, G_FMT, fmt)
        fcntl.ioctl(descriptor, S_FMT, fmt)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise
        # Any other refusal says nothing of other programs; OpenCV tries next, and tells.


def _enumerated(
    descriptor: int, request: int, layout: struct.Struct, *head: int
) -> list[tuple[Any, ...]]:
    """Count the first field up until the driver says that there is no more."""
    found: list[tuple[Any, ...]] = []
    for index in range(_MOST):
        entry = bytearray(layout.size)
        struct.pack_into(f"={1 + len(head)}I", entry, 0, index, *head)
        try:
            fcntl.ioctl(descriptor, request, entry)
        except OSError as error:
            # EINVAL: after the last one. ENOTTY: this driver does not tell. Else: it broke.
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                break
            raise
        unpacked = layout.unpack(entry)
        if found and unpacked[1:] == found[-1][1:]:
            break  # it does not count
        found.append(unpacked)
    return found


def _modes(descriptor: int, kind: int) -> list[Mode]:
    modes = []
    for _, _, flags, _, pixelformat in _enumerated(descriptor, ENUM_FMT, _FMTDESC, kind):
        if flags & _FLAG_EMULATED:
            continue  # made by a library out of another one of the list
        fourcc = struct.pack("=I", pixelformat).decode("latin-1")
        for _, _, size_kind, *numbers in _enumerated(
            descriptor, ENUM_FRAMESIZES, _FRMSIZEENUM, pixelformat
        ):
            if size_kind == _DISCRETE:
                least = most = (numbers[1], numbers[0])
                step = (1, 1)
            else:
                least, most = (numbers[3], numbers[0]), (numbers[4], numbers[1])
                step = (max(1, numbers[5]), max(1, numbers[2]))
            rates, any_rate = _rates(descriptor, pixelformat, most)
            modes.append(Mode(fourcc, least, most, step, rates, any_rate))
            if size_kind != _DISCRETE:
                break  # a range is one entry
    return modes


def _rates(
    descriptor: int, pixelformat: int, size_px: tuple[int, int]
) -> tuple[tuple[float, ...], bool]:
    """Frames per second in a size, and whether all between them; intervals are in seconds."""
    height, width = size_px
    rates: list[float] = []
    for _, _, _, _, kind, *parts in _enumerated(
        descriptor, ENUM_FRAMEINTERVALS, _FRMIVALENUM, pixelformat, width, height
    ):
        intervals = [(parts[0], parts[1])]
        if kind != _DISCRETE:
            intervals.append((parts[2], parts[3]))
        rates += [round(below / above, 3) for above, below in intervals if above and below]
        if kind != _DISCRETE:
            return tuple(rates), True
    return tuple(rates), False


def holders(node: Path) -> list[str]:
    """The programs that have the device open, as far as this user may see them: `cheese (812)`."""
    device = os.path.realpath(node)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if any(os.path.realpath(opened) == device for opened in (process / "fd").iterdir()):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
        except OSError:
            continue  # another user's, or gone meanwhile
    return sorted(found)
