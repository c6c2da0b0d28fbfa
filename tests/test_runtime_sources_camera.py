"""Cameras by V4L2. No camera can be plugged into the machine that runs the tests, so
`fcntl.ioctl` is answered by a driver that is written here, and OpenCV's capture by a class; the
layouts that pass between are checked against the kernel's own header where a compiler is here."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import SourceError
from runtime.sources import camera, open_source, v4l2
from runtime.sources.v4l2 import Choice, Mode, choose

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's")

VGA, HD, FULL_HD = (480, 640), (720, 1280), (1080, 1920)


def mode(fourcc, size_px, *rates):
    return Mode(fourcc, size_px, size_px, rates=rates)


WEBCAM = (
    mode("MJPG", VGA, 30.0),
    mode("MJPG", HD, 30.0),
    mode("MJPG", FULL_HD, 30.0),
    mode("YUYV", VGA, 30.0, 15.0),
    mode("YUYV", HD, 10.0),
    mode("YUYV", FULL_HD, 5.0),
)


@pytest.mark.parametrize(
    ("size_px", "fps", "taken"),
    [
        (None, None, Choice("YUYV", VGA, 30.0)),
        (VGA, 15, Choice("YUYV", VGA, 15.0)),
        (HD, 30, Choice("MJPG", HD, 30.0)),
        (HD, None, Choice("MJPG", HD, 30.0)),
        (HD, 10, Choice("YUYV", HD, 10.0)),
        (HD, 5, Choice("YUYV", HD, 10.0)),
        (FULL_HD, 60, Choice("MJPG", FULL_HD, 30.0)),
        ((700, 1200), 30, Choice("MJPG", HD, 30.0)),
        ((9999, 9999), 5, Choice("YUYV", FULL_HD, 5.0)),
        ((1, 1), None, Choice("YUYV", VGA, 30.0)),
    ],
)
def test_raw_pictures_are_taken_where_they_come_as_often_as_asked(size_px, fps, taken):
    assert choose(WEBCAM, size_px, fps) == taken


def test_a_rate_a_little_below_a_whole_number_is_meant_by_it():
    modes = (mode("YUYV", VGA, 29.97), mode("MJPG", VGA, 30.0, 60.0))
    assert choose(modes, VGA, 30) == Choice("YUYV", VGA, 29.97)
    assert choose(modes, VGA, None) == Choice("MJPG", VGA, 60.0)
    assert choose(modes, VGA, 60) == Choice("MJPG", VGA, 60.0)


def test_a_size_that_only_one_format_offers_decides_for_it():
    modes = (mode("MJPG", FULL_HD, 30.0), mode("YUYV", VGA, 30.0))
    assert choose(modes, FULL_HD, 30).fourcc == "MJPG"
    assert choose(modes, VGA, 30).fourcc == "YUYV"


def test_a_range_of_sizes_and_rates_gives_what_was_asked_on_its_steps():
    ranged = Mode("NV12", (64, 64), (1080, 1920), (2, 16), (1.0, 60.0), any_rate=True)
    assert choose([ranged], (721, 1281), 24.5) == Choice("NV12", (720, 1280), 24.5)
    assert choose([ranged], (4000, 4000), 90) == Choice("NV12", (1080, 1920), 60.0)
    assert choose([ranged], (1, 1), 0.5) == Choice("NV12", (64, 64), 1.0)


def test_what_opencv_cannot_decode_is_not_chosen():
    assert choose([mode("H264", HD, 30.0)], HD, 30) is None
    assert choose([], None, None) is None
    assert choose([mode("H264", HD, 60.0), mode("YUYV", VGA)], HD, 30) == Choice("YUYV", VGA, None)


sizes = st.tuples(st.integers(1, 4000), st.integers(1, 4000))
modes = st.builds(
    lambda fourcc, size_px, rates: mode(fourcc, size_px, *rates),
    st.sampled_from(["YUYV", "MJPG", "NV12", "H264"]),
    sizes,
    st.lists(st.floats(1, 240), max_size=4),
)


@given(st.lists(modes, max_size=12), sizes, st.none() | st.floats(1, 240))
def test_what_is_chosen_is_offered_and_no_offered_size_is_nearer(offered, size_px, fps):
    usable = [one for one in offered if one.fourcc != "H264"]
    taken = choose(offered, size_px, fps)
    if not usable:
        assert taken is None
        return

    def distance(size):
        return abs(size[0] - size_px[0]) + abs(size[1] - size_px[1])

    assert any(
        one.fourcc == taken.fourcc
        and one.most_px == taken.size_px
        and (taken.fps in one.rates or (taken.fps is None and not one.rates))
        for one in usable
    )
    assert distance(taken.size_px) == min(distance(one.most_px) for one in usable)


class Driver:
    """Answers `fcntl.ioctl` as a V4L2 driver does: no camera's USB port is here.

    `formats`: for each fourcc its sizes, for each size its intervals (numerator, denominator); a
    size or an interval of six or three pairs is a range, as the kernel writes it.
    """

    def __init__(self, formats, capabilities=0x84A00001, node=0x04200001, in_use=False):
        self.formats, self.capabilities, self.node = formats, capabilities, node
        self.in_use = in_use
        self.calls = []

    def __call__(self, descriptor, request, argument):
        os.fstat(descriptor)  # must be open
        self.calls.append(request)
        assert request >> 16 & 0x3FFF == len(argument)
        if request == 0x80685600:
            name = (b"uvcvideo", b"HD Webcam C920", b"usb-1")
            struct.pack_into("=16s32s32sIII", argument, 0, *name, 6, self.capabilities, self.node)
            return 0
        if request == 0xC0D05604:
            return 0
        if request == 0xC0D05605:
            if self.in_use:
                raise OSError(errno.EBUSY, "busy")
            return 0
        index = struct.unpack_from("=I", argument)[0]
        if request == 0xC0405602:
            fourcc = self._entry(list(self.formats), index)
            struct.pack_into("=I32s4s", argument, 8, 0, b"a format", fourcc.encode())
        elif request == 0xC02C564A:
            fourcc = bytes(argument[4:8]).decode()
            size = self._entry(list(self.formats[fourcc]), index)
            kind = 1 if len(size) == 2 else 3
            struct.pack_into(f"=I{len(size)}I", argument, 8, kind, *size)
        elif request == 0xC034564B:
            fourcc = bytes(argument[4:8]).decode()
            width, height = struct.unpack_from("=II", argument, 8)
            interval = self._entry(self._intervals(fourcc, width, height), index)
            kind = 1 if len(interval) == 2 else 3
            struct.pack_into(f"=I{len(interval)}I", argument, 16, kind, *interval)
        else:
            raise AssertionError(hex(request))
        return 0

    def _intervals(self, fourcc, width, height):
        for size, intervals in self.formats[fourcc].items():
            if size == (width, height) or (
                len(size) == 6 and (size[1], size[4]) == (width, height)
            ):
                return intervals
        raise AssertionError((fourcc, width, height))

    @staticmethod
    def _entry(entries, index):
        if index >= len(entries):
            raise OSError(errno.EINVAL, "no more")
        return entries[index]


FORMATS = {
    "YUYV": {(640, 480): [(1, 30), (1, 15)], (1280, 720): [(1, 10)]},
    "MJPG": {(640, 480): [(1, 30)], (1280, 720): [(1, 30), (1001, 24000)]},
}


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """Puts a camera in: its driver answers for a file that stands for its device."""

    def plug(driver):
        node = tmp_path / "video0"
        node.touch()
        monkeypatch.setattr(fcntl, "ioctl", driver)
        return node

    return plug


def test_a_driver_is_asked_for_its_formats_sizes_and_rates(plugged):
    device = v4l2.ask(plugged(Driver(FORMATS)))
    assert (device.card, device.captures) == ("HD Webcam C920", True)
    assert device.modes == (
        mode("YUYV", (480, 640), 30.0, 15.0),
        mode("YUYV", (720, 1280), 10.0),
        mode("MJPG", (480, 640), 30.0),
        mode("MJPG", (720, 1280), 30.0, 23.976),
    )


def test_a_range_is_read_as_the_kernel_writes_it(plugged):
    sizes = {(32, 1920, 16, 24, 1080, 8): [(1, 60, 1, 1, 0, 1)]}
    (only,) = v4l2.ask(plugged(Driver({"NV12": sizes}))).modes
    assert only == Mode("NV12", (24, 32), (1080, 1920), (8, 16), (60.0, 1.0), any_rate=True)


def test_a_driver_that_never_stops_to_count_is_not_followed_for_ever(plugged):
    class Endless(Driver):
        @staticmethod
        def _entry(entries, index):
            return entries[0]

    assert 0 < len(v4l2.ask(plugged(Endless({"YUYV": {(64, 48): [(1, 30)]}}))).modes) < 10**6


def test_a_node_without_pictures_is_told(plugged, monkeypatch):
    node = plugged(Driver(FORMATS, node=0x04A00000))
    assert not v4l2.ask(node).captures
    with pytest.raises(SourceError, match="second node"):
        camera.CameraSource(str(node))


def test_a_camera_in_use_is_told_with_the_program_that_holds_it(plugged):
    node = plugged(Driver(FORMATS, in_use=True))
    code = f"import time; held = open({str(node)!r}); print('open', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(SourceError, match="is in use by") as error:
            camera.CameraSource(str(node))
        assert f"({other.pid})" in str(error.value)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with pytest.raises(SourceError, match="is in use by another program"):
        camera.CameraSource(str(node))


def test_what_is_no_camera_is_told(tmp_path):
    (tmp_path / "video0").touch()
    with pytest.raises(SourceError, match="does not answer as a camera"):
        camera.CameraSource(str(tmp_path / "video0"))


class Capture:
    """Stands for `cv2.VideoCapture`: gives grey frames of the size that was set, as a camera."""

    made: ClassVar = []

    def __init__(self, device, backend):
        self.device, self.backend = device, backend
        self.set_to = {}
        self.count, self.stamp_ms, self.alive = 0, None, True
        Capture.made.append(self)

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.alive

    def set(self, prop, value):
        self.set_to[prop] = value
        return True

    def get(self, prop):
        if prop == cv2.CAP_PROP_POS_MSEC:
            return time.perf_counter() * 1000 - 25 if self.stamp_ms is None else self.stamp_ms
        return self.set_to.get(prop, 0.0)

    def read(self, into=None):
        if not self.alive:
            return False, None
        shape = (*(int(self.set_to[p]) for p in (cv2.CAP_PROP_FRAME_HEIGHT, 3)), 3)
        image = into if into is not None and into.shape == shape else np.empty(shape, np.uint8)
        image[:] = self.count
        self.count += 1
        return True, image

    def release(self):
        self.alive = False


@pytest.fixture
def capture(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "made", [])
    return Capture.made


def test_a_camera_is_opened_in_the_format_that_was_chosen(plugged, capture):
    node = plugged(Driver(FORMATS))
    source = camera.CameraSource(str(node), (720, 1280), 30)
    (opened,) = capture
    order = list(opened.set_to)
    assert opened.set_to[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")
    assert order.index(cv2.CAP_PROP_FOURCC) < order.index(cv2.CAP_PROP_FRAME_WIDTH)
    assert opened.set_to[cv2.CAP_PROP_FPS] == 30
    assert opened.set_to[cv2.CAP_PROP_BUFFERSIZE] == 2
    assert source.description == f"{node} (HD Webcam C920), 1280x720 MJPG, 30 fps"
    assert (source.size_px, source.fps, source.live, source.warning) == ((720, 1280), 30, True, "")
    source.close()
    assert not opened.alive


def test_the_nearest_size_and_the_highest_rate_are_told(plugged, capture):
    node = plugged(Driver(FORMATS))
    assert "nearest size, 1280x720" in camera.CameraSource(str(node), (1000, 1000)).warning
    assert "highest rate, 30 fps" in camera.CameraSource(str(node), (480, 640), 60).warning


def test_the_age_of_a_frame_counts_from_the_drivers_stamp(plugged, capture):
    source = camera.CameraSource(str(plugged(Driver(FORMATS))))
    age_ms = (time.perf_counter_ns() - source.read().captured_at_ns) / 1e6
    assert 15 <= age_ms < 1000


@pytest.mark.parametrize("stamp_ms", [0.0, -1.0, 1e15, 1.7e12])
def test_a_stamp_of_another_clock_is_not_believed(plugged, capture, stamp_ms):
    source = camera.CameraSource(str(plugged(Driver(FORMATS))))
    capture[0].stamp_ms = stamp_ms
    before_ns = time.perf_counter_ns()
    assert before_ns <= source.read().captured_at_ns <= time.perf_counter_ns()


def test_frames_of_a_camera_use_memory_again_and_may_change_their_size(plugged, capture):
    source = camera.CameraSource(str(plugged(Driver(FORMATS))))
    held = source.read().image
    assert len({source.read().image.ctypes.data for _ in range(10)}) <= 2
    assert (held == 1).all()
    capture[0].set_to[cv2.CAP_PROP_FRAME_HEIGHT] = 240
    assert source.read().image.shape == (240, 640, 3)
    assert source.size_px == (240, 640)
    capture[0].alive = False
    with pytest.raises(SourceError, match="stopped giving frames after 12"):
        source.read()


def test_opencv_waits_two_seconds_and_not_ten_for_a_camera_that_stalls():
    code = (
        "import os; from runtime.sources import open_source, camera\n"
        "print(os.environ['OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT'])"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV_VIDEOIO")}
    for given_s, expected in (({}, "2"), ({"OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "1"}, "1")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent.parent,
            env={**clean, **given_s},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_a_camera_by_its_name_is_found_through_the_link(tmp_path, plugged, capture):
    node = plugged(Driver(FORMATS))
    (tmp_path / "usb-C920").symlink_to(node)
    camera.CameraSource(str(tmp_path / "usb-C920"))
    assert capture[0].device == str(node)
    with pytest.raises(SourceError, match="no camera /dev/v4l/by-id/usb-nothing"):
        open_source("/dev/v4l/by-id/usb-nothing?fps=30")


_C = r"""
#include <linux/videodev2.h>
#include <stdio.h>
#include <string.h>
#include <stddef.h>
#define PUT(value) fwrite(&value, sizeof value, 1, stdout)
int main(void) {
    unsigned int numbers[6] = {VIDIOC_QUERYCAP, VIDIOC_ENUM_FMT, VIDIOC_G_FMT, VIDIOC_S_FMT,
                               VIDIOC_ENUM_FRAMESIZES, VIDIOC_ENUM_FRAMEINTERVALS};
    struct v4l2_capability capability = {0};
    strcpy((char *)capability.card, "card");
    capability.capabilities = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_DEVICE_CAPS;
    capability.device_caps = V4L2_CAP_VIDEO_CAPTURE_MPLANE;
    struct v4l2_fmtdesc format = {0};
    format.index = 1; format.type = V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE;
    format.flags = V4L2_FMT_FLAG_EMULATED; format.pixelformat = V4L2_PIX_FMT_MJPEG;
    struct v4l2_frmsizeenum size = {0};
    size.index = 2; size.pixel_format = 3; size.type = V4L2_FRMSIZE_TYPE_STEPWISE;
    size.stepwise = (struct v4l2_frmsize_stepwise){4, 5, 6, 7, 8, 9};
    struct v4l2_frmivalenum interval = {0};
    interval.index = 1; interval.pixel_format = 2; interval.width = 3; interval.height = 4;
    interval.type = V4L2_FRMIVAL_TYPE_DISCRETE;
    interval.discrete = (struct v4l2_fract){1001, 30000};
    PUT(numbers); PUT(capability); PUT(format); PUT(size); PUT(interval);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.skipif(
    not Path("/usr/include/linux/videodev2.h").exists(), reason="needs the kernel's headers"
)
def test_the_layouts_are_those_of_the_kernels_header(tmp_path):
    (tmp_path / "layout.c").write_text(_C)
    subprocess.run(["cc", "-o", tmp_path / "layout", tmp_path / "layout.c"], check=True)
    told = subprocess.run([tmp_path / "layout"], check=True, capture_output=True).stdout
    numbers = struct.unpack_from("=6I", told)
    assert numbers == (
        v4l2.QUERYCAP,
        v4l2.ENUM_FMT,
        v4l2.G_FMT,
        v4l2.S_FMT,
        v4l2.ENUM_FRAMESIZES,
        v4l2.ENUM_FRAMEINTERVALS,
    )
    at = 24
    unpacked = []
    for layout in (v4l2._CAPABILITY, v4l2._FMTDESC, v4l2._FRMSIZEENUM, v4l2._FRMIVALENUM):
        unpacked.append(layout.unpack_from(told, at))
        at += layout.size
    assert at == len(told)
    capability, form, size, interval = unpacked
    assert capability[1].startswith(b"card\0")
    assert capability[4:] == (0x80000001, v4l2._CAP_VIDEO_CAPTURE_MPLANE)
    assert (form[0], form[1], form[2]) == (1, v4l2._BUF_TYPE_CAPTURE_MPLANE, v4l2._FLAG_EMULATED)
    assert struct.pack("=I", form[4]) == b"MJPG"
    assert size == (2, 3, 3, 4, 5, 6, 7, 8, 9)
    assert interval[:7] == (1, 2, 3, 4, v4l2._DISCRETE, 1001, 30000)
