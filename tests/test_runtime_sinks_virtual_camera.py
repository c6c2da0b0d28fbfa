"""The virtual camera: what is refused, and which frames reach it."""

import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from runtime.errors import SinkError
from runtime.frame import Frame
from runtime.sinks.virtual_camera import VirtualCameraSink
from runtime.sources.synthetic import SyntheticSource, index_in


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(SinkError, match=r"pip install 'pix2pix-edge\[virtual\]'"):
        VirtualCameraSink(30)


@pytest.mark.skipif(
    bool(list(Path("/dev").glob("video*"))), reason="this machine has video devices"
)
@pytest.mark.parametrize("device", [None, "/dev/video77"])
def test_without_a_device_it_is_said_how_to_make_one(device):
    pytest.importorskip("pyvirtualcam", reason="pip install pyvirtualcam")
    sink = VirtualCameraSink(30, device)
    with pytest.raises(SinkError, match="sudo modprobe v4l2loopback") as caught:
        sink.write(Frame(np.zeros((48, 64, 3), np.uint8), 0))
    assert "\n" not in str(caught.value)
    sink.close()


class SimulatedCamera:
    """pyvirtualcam's camera: no machine of a test can load the kernel module that it needs."""

    opened: ClassVar[list] = []

    def __init__(self, *, width, height, fps, fmt, device):
        if width == 2:
            raise RuntimeError("device is\nbusy")
        self.asked = (width, height, fps, fmt, device)
        self.sent = []
        self.closed = False
        self.opened.append(self)

    def send(self, image):
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.shape == (self.asked[1], self.asked[0], 3)
        self.sent.append(image.copy())

    def close(self):
        self.closed = True


def test_frames_reach_the_virtual_camera_and_a_new_size_opens_it_again(monkeypatch):
    simulated = types.SimpleNamespace(
        Camera=SimulatedCamera, PixelFormat=types.SimpleNamespace(BGR="bgr")
    )
    monkeypatch.setitem(sys.modules, "pyvirtualcam", simulated)
    monkeypatch.setattr(SimulatedCamera, "opened", [])
    sink = VirtualCameraSink(24, "/dev/video10")
    assert SimulatedCamera.opened == [], "opened with the first frame"
    image = SyntheticSource((48, 104))._draw(5)
    sink.write(Frame(image[:, ::-1], 0))
    sink.write(Frame(image, 1))
    sink.write(Frame(image[:24].copy(), 2))
    first, second = SimulatedCamera.opened
    assert first.asked == (104, 48, 24, "bgr", "/dev/video10")
    assert first.closed
    assert np.array_equal(first.sent[0], image[:, ::-1])
    assert index_in(first.sent[1]) == 5
    assert second.asked[:2] == (104, 24)
    with pytest.raises(SinkError, match="device is busy"):
        sink.write(Frame(np.zeros((2, 2, 3), np.uint8), 3))
    sink.close()
    sink.close()
    assert second.closed


def test_the_note_of_a_lost_camera_is_shown():
    assert VirtualCameraSink.shows_notes
