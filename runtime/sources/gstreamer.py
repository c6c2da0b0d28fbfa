"""What GStreamer can open: a Jetson's CSI cameras, and any pipeline that ends in raw video.

A `gst-launch-1.0` of its own does the work, because the OpenCV of PyPI is built without
GStreamer. The pixels come through a pipe. A second one, its standard output, tells before each
buffer how many bytes it has, and the caps whenever they change, both in the order of the stream
(an `identity` element that is not silent, under `-v`): so a frame is never torn, whatever changes
in between.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np

from runtime.buffers import FrameBuffers
from runtime.errors import SourceError
from runtime.frame import Frame, Image
from runtime.pipe_capacity import widen
from runtime.sources.base import told_fps
from runtime.sources.gstreamer_errors import failure
from runtime.sources.pipes import Waker, fill, read_some, seconds_left
from runtime.uris import redacted_pipeline

_OPEN_S = 10.0
"""For the first frame: the camera service of a Jetson, or a network, takes seconds."""
_STALLED_S = 2.0
_END_S = 1.0
_OLD_BEHIND_PIPE = 2
"""Frames in the queue and the elements behind it."""
_NEXT_WITHIN_S = 0.05
"""How soon the newest frame comes when those before it have left the pipe."""
_MOST_ERROR_BYTES = 1 << 16

_NAME = "p2pframes"
_CAPS = re.compile(
    rf"GstIdentity:{_NAME}(?:\.GstPad:src: caps = |: last-message = event .*type: caps .*)"
    r"video/x-raw,.*width=\(int\)(\d+), "
    r"height=\(int\)(\d+)(?:.*framerate=\(fraction\)(\d+)/(\d+))?".encode()
)
"""Told twice, as an event and by the pad, of which GStreamer loses the second now and then: 5 of
1,800 openings on a busy machine."""
_BUFFER = re.compile(rf"GstIdentity:{_NAME}: last-message = chain .*\((\d+) bytes".encode())
_TAIL = (
    "! queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 "
    f"! videoconvert ! video/x-raw,format=BGR ! identity name={_NAME} silent=false "
    "! fdsink sync=false async=false fd="
)
"""The queue in front of the pipe holds one buffer, and gives up the older one for a newer."""

_running: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


def of_pipeline(pipeline: str) -> GStreamerSource:
    """Open `gst://PIPELINE`: what stands behind `gst-launch-1.0`, without a sink at its end.

    An `appsink` at its end, as OpenCV wants it, is left out.

    Raises:
        SourceError: as `GStreamerSource`, and a quotation mark without its partner.
    """
    try:
        words = shlex.split(re.sub(r"!\s*appsink\b[^!]*$", "", pipeline.strip()))
    except ValueError as error:
        raise SourceError(
            redacted_pipeline(f"cannot read the pipeline {pipeline} ({error})"),
            "a pipeline as behind gst-launch-1.0",
            "close the quotation mark",
        ) from error
    if not words:
        raise SourceError(
            "gst:// without a pipeline",
            "a pipeline as behind gst-launch-1.0, without its sink",
            "write for example 'gst://videotestsrc ! video/x-raw,width=640,height=480'",
        )
    told = redacted_pipeline(pipeline.strip())
    return GStreamerSource(words, "gst://" + (told if len(told) <= 60 else told[:57] + "..."))


def of_csi(
    number: int,
    size_px: tuple[int, int] | None = None,
    fps: float | None = None,
    flip: int = 0,
) -> GStreamerSource:
    """Open a camera on a Jetson's CSI connector, by NVIDIA's camera service.

    Args:
        size_px: (height, width); None: 720 x 1280.
        fps: None: 30.
        flip: `flip-method` of nvvidconv: 0 as it is, 2 turned by 180 degrees, 1 and 3 by 90.

    Raises:
        SourceError: as `GStreamerSource`.
    """
    height, width = size_px or (720, 1280)
    rate = f"{round((fps or 30) * 1000)}/1000"
    words = [
        *("nvarguscamerasrc", f"sensor-id={number}", "!"),
        f"video/x-raw(memory:NVMM),format=NV12,width={width},height={height},framerate={rate}",
        *("!", "nvvidconv", f"flip-method={flip}", "!", "video/x-raw,format=BGRx"),
    ]
    return GStreamerSource(words, f"csi://{number}")


class GStreamerSource:
    """Frames of a GStreamer pipeline, the newest one each time.

    What piled up in the pipe while nobody read is read, and not given out.

    Args:
        words: the pipeline without its sink, in words as a shell would pass them.
        name: for people.

    Raises:
        SourceError: no GStreamer here, an element that is missing, or no frame in 10 seconds.
    """

    live = True
    frame_count: int | None = None
    warning = ""

    def __init__(self, words: Sequence[str], name: str) -> None:
        program = shutil.which("gst-launch-1.0")
        if program is None or sys.platform == "win32":
            raise SourceError(
                f"{name} needs gst-launch-1.0, which is not here",
                "GStreamer's tools and plugins",
                "run: sudo apt install gstreamer1.0-tools gstreamer1.0-plugins-base "
                "gstreamer1.0-plugins-good",
            )
        self._name = name
        self.size_px: tuple[int, int] | None = None
        self.fps: float | None = None
        self._next_index = 0
        self._buffers = FrameBuffers()
        self._rows: Image | None = None  # for rows that GStreamer pads to four bytes
        self._log = b""
        self._sizes: deque[int] = deque()  # in bytes, of buffers that were announced
        self._errors = bytearray()
        self._was_here_s = time.monotonic()
        self._waker = Waker()
        self._asked = False
        self._pixels, writing = os.pipe()
        widen(self._pixels)
        os.set_blocking(writing, False)  # a fdsink that is stuck in a write cannot be ended
        try:
            self._process = subprocess.Popen(
                [program, "-v", *words, *(_TAIL + str(writing)).split()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                pass_fds=(writing,),
                start_new_session=True,  # a group to end, and no Ctrl-C before ours
                env={**os.environ, "LC_ALL": "C", "GST_DEBUG_NO_COLOR": "1"},
            )
        finally:
            os.close(writing)
        _running.add(self._process)
        try:
            self._first = self._next(_OPEN_S)
            if self._first is None:
                raise self._broke("gave no frame")
        except BaseException:
            self.close()
            raise
        assert self.size_px is not None
        height, width = self.size_px
        self.description = f"{name}, {width}x{height}, {told_fps(self.fps)}"

    def read(self) -> Frame | None:
        """Wait for the next frame; None at the end of a pipeline that ends."""
        frame, self._first = self._first, None
        if frame is None:
            frame = self._next(max(_STALLED_S, 3 / self.fps if self.fps else 0.0))
        return frame

    def interrupt(self) -> None:
        """End the pipeline; a `read` that waits returns None."""
        self._waker.wake()
        self._ask_to_end()

    def _ask_to_end(self) -> None:
        # A camera service is left in order by a pipeline that ends by itself. Asked twice,
        # gst-launch does not end at all.
        if not self._asked:
            self._asked = True
            _signal(self._process, signal.SIGINT)

    def close(self) -> None:
        """End the pipeline, by force where it does not end in a second."""
        self._waker.wake()
        if self._process.returncode is None:
            self._ask_to_end()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
            _signal(self._process, signal.SIGKILL)
            self._process.wait()
        _running.discard(self._process)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        if self._pixels >= 0:
            os.close(self._pixels)
            self._pixels = -1
        self._waker.close()

    def _next(self, timeout_s: float) -> Frame | None:
        started_ns = time.perf_counter_ns()
        away_s = time.monotonic() - self._was_here_s
        size_bytes = self._announced(time.monotonic() + timeout_s)
        waiting = self._waiting(0.0) if size_bytes is not None else 0
        older = None
        for _ in range(waiting):
            whole = None if size_bytes is None else self._image(size_bytes, timeout_s)
            if whole is None:
                break
            older = whole
            size_bytes = self._announced(time.monotonic() + timeout_s)
        image = None if size_bytes is None else self._image(size_bytes, timeout_s)
        if image is None:  # the newest was cut off by the end
            image = older
        # The last one that was announced has waited too, in a pipe that was full. Behind it, in
        # the queue, is the newest.
        behind = waiting > 0 or (self.fps is not None and away_s > max(0.1, 2 / self.fps))
        for _ in range(_OLD_BEHIND_PIPE if behind else 0):
            if image is None or not self._waiting(_NEXT_WITHIN_S):
                break
            size_bytes = self._announced(time.monotonic() + timeout_s)
            newest = None if size_bytes is None else self._image(size_bytes, timeout_s)
            image = image if newest is None else newest
        self._was_here_s = time.monotonic()
        if image is None:
            self._check_end()
            return None
        now_ns = time.perf_counter_ns()
        frame = Frame(image, self._next_index, now_ns, (now_ns - started_ns) / 1e6)
        self._next_index += 1
        return frame

    def _image(self, size_bytes: int, timeout_s: float) -> Image | None:
        """The frame that comes next in the pipe; None where it is cut off."""
        assert self.size_px is not None
        height, width = self.size_px
        row_bytes = (3 * width + 3) // 4 * 4
        if size_bytes != height * row_bytes:
            raise SourceError(
                f"{self._name} gave {size_bytes} bytes for {width}x{height} pixels",
                f"{height * row_bytes} bytes of BGR",
                "end the pipeline in ! videoconvert",
            )
        image = self._buffers.take(self.size_px)
        into = image
        if row_bytes != 3 * width:
            if self._rows is None or self._rows.shape != (height, row_bytes):
                self._rows = np.empty((height, row_bytes), np.uint8)
            into = self._rows
        if not self._filled(into.data.cast("B"), timeout_s):
            return None
        if into is not image:
            np.copyto(image.reshape(height, 3 * width), into[:, : 3 * width])
        return image

    def _filled(self, view: memoryview, timeout_s: float) -> bool:
        filled, ended = fill(self._waker, self._pixels, view, 0, timeout_s)
        if filled == len(view):
            return True
        if self._waker.woken or ended:
            return False
        raise self._stalled(timeout_s)

    def _waiting(self, within_s: float) -> int:
        """How many buffers are announced that `_announced` has not given out.

        Args:
            within_s: how long to wait for the first one.
        """
        assert self._process.stdout is not None
        log, until_s = self._process.stdout.fileno(), time.monotonic() + within_s
        while True:
            count = len(self._sizes) + len(_BUFFER.findall(self._log))
            if not self._waker.wait([log], 0.0 if count else seconds_left(until_s)):
                return count
            told = os.read(log, 1 << 14)
            if not told:
                return count
            self._log += told

    def _announced(self, until_s: float) -> int | None:
        """The size in bytes of the buffer that comes next in the pipe; None after the last."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        log, errors = self._process.stdout.fileno(), self._process.stderr.fileno()
        chunk = memoryview(bytearray(1 << 14))
        watched = [log, errors]
        while True:
            while b"\n" in self._log:
                line, self._log = self._log.split(b"\n", 1)
                if buffer := _BUFFER.search(line):
                    self._sizes.append(int(buffer[1]))
                elif caps := _CAPS.search(line.replace(b"\\", b"")):  # the event escapes them
                    self.size_px = (int(caps[2]), int(caps[1]))
                    steady = caps[3] and int(caps[3]) and int(caps[4])
                    self.fps = int(caps[3]) / int(caps[4]) if steady else None
                # The log is written by several threads: the first caps may come a line late.
                if self._sizes and self.size_px is not None:
                    return self._sizes.popleft()
            ready = self._waker.wait(watched, seconds_left(until_s))
            if not ready:
                if self._waker.woken:
                    return None
                raise self._stalled(_STALLED_S if self._next_index else _OPEN_S)
            if errors in ready and not self._take_error(errors, chunk):
                watched.remove(errors)
            if log in ready:
                count = read_some(log, chunk)
                if count == 0:
                    return None
                self._log += bytes(chunk[:count])

    def _take_error(self, errors: int, chunk: memoryview) -> bool:
        count = read_some(errors, chunk)
        if len(self._errors) < _MOST_ERROR_BYTES:
            self._errors += chunk[:count]
        return count > 0

    def _check_end(self) -> None:
        """Tell an end from a failure.

        Raises:
            SourceError: gst-launch failed, or was killed.
        """
        if self._waker.woken:
            return
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            raise self._broke("closed its pipe and goes on") from None
        if code < 0:
            raise self._broke(f"was ended by {signal.Signals(-code).name}")
        if code > 0:
            raise self._broke(f"failed (exit code {code})")

    def _stalled(self, after_s: float) -> SourceError:
        return self._broke(f"gave no frame for {after_s:.0f} s")

    def _broke(self, what: str) -> SourceError:
        """What happened, with GStreamer's own words where it told."""
        assert self._process.stderr is not None
        errors, chunk = self._process.stderr.fileno(), memoryview(bytearray(1 << 14))
        while self._waker.wait([errors], 0.0) and self._take_error(errors, chunk):
            pass
        return failure(self._name, what, bytes(self._errors).decode(errors="replace"))


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the process and what it started, as long as it is there."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _end_all() -> None:
    for process in list(_running):
        _signal(process, signal.SIGKILL)


atexit.register(_end_all)
