"""A camera that other programs on this machine see: for video calls and OBS."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.errors import SinkError
from runtime.frame import Frame
from runtime.sinks.base import BaseSink

DEFAULT_FPS = 30.0

_MEND = "run: sudo apt install v4l2loopback-dkms; sudo modprobe v4l2loopback"


class VirtualCameraSink(BaseSink):
    """A virtual camera, by pyvirtualcam: v4l2loopback on Linux, OBS's camera elsewhere.

    The device is opened with the first frame. Programs that watch it keep the size that they
    found: a frame of another size opens it again, which the driver refuses while one watches.

    Args:
        fps: the rate that the camera claims; None: 30.
        device: `/dev/video10`; None: the first virtual camera that is free.

    Raises:
        SinkError: pyvirtualcam is not installed.
    """

    shows_notes = True

    def __init__(self, fps: float | None = None, device: str | None = None) -> None:
        self._pyvirtualcam = _pyvirtualcam()
        self._fps = fps or DEFAULT_FPS
        self._device = device or None
        self._camera: Any = None
        self._size_px = (0, 0)
        where = self._device or "the first one that is free"
        self.description = f"virtual camera, {where}, {self._fps:.5g} fps"

    def write(self, frame: Frame) -> None:
        """Show a frame to whoever watches the camera.

        Raises:
            SinkError: there is no virtual camera, or it does not take frames of this size.
        """
        height, width = frame.image.shape[:2]
        if self._camera is None or (height, width) != self._size_px:
            self._open(width, height)
        try:
            self._camera.send(np.ascontiguousarray(frame.image))
        except (RuntimeError, ValueError, OSError) as error:
            raise SinkError(
                f"the virtual camera took no frame ({_one_line(error)})",
                f"one that takes {width}x{height}",
                _MEND,
            ) from error

    def close(self, keep: bool = True) -> None:  # noqa: ARG002 - nothing is kept
        """Let go of the device."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()

    def _open(self, width: int, height: int) -> None:
        self.close()
        try:
            self._camera = self._pyvirtualcam.Camera(
                width=width,
                height=height,
                fps=self._fps,
                fmt=self._pyvirtualcam.PixelFormat.BGR,
                device=self._device,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise SinkError(
                f"no virtual camera for {width}x{height} ({_one_line(error)})",
                f"a v4l2loopback device{f' {self._device}' if self._device else ''} that no "
                "program holds at another size",
                _MEND,
            ) from error
        self._size_px = (height, width)


def _pyvirtualcam() -> Any:
    try:
        import pyvirtualcam
    except ImportError as error:
        raise SinkError(
            f"a virtual camera needs pyvirtualcam ({error})",
            "the package, and a v4l2loopback device",
            "run: pip install 'pix2pix-edge[virtual]'; "
            "sudo apt install v4l2loopback-dkms; sudo modprobe v4l2loopback",
        ) from error
    return pyvirtualcam


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
