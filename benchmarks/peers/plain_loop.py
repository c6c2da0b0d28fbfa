"""The plain peer of the benchmarks: what one writes in an afternoon with OpenCV and ONNX Runtime.

`read`, resize, scale to -1..1 in numpy, `InferenceSession.run` with default options on what
`torch.onnx.export` made of the generator, scale back, resize, show: one after the other. Frames
come out of a queue, as V4L2 and FFmpeg have one, and nobody empties it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.stock import export_stock
from runtime.frame import Frame, Image
from runtime.sources.synthetic import SyntheticSource


def export_plainly(checkpoint: Path, path: Path) -> None:
    """Write a run's generator as `torch.onnx.export` makes it: float32 [1, C, H, W], -1 to 1.

    Args:
        checkpoint: a run's folder or a `generator.safetensors`.
        path: the ONNX file.

    Raises:
        ModelError: no checkpoint, or torch's exporter refuses it.
    """
    from export.checkpoints import open_checkpoint

    loaded = open_checkpoint(checkpoint)
    side_px = loaded.size_px
    export_stock(loaded.generator, loaded.input_channels, (side_px, side_px), path)


class PlainNetwork:
    """The session and the numpy around it.

    Args:
        path: as `export_plainly` writes it, or one of our own frame-in frame-out files.
        threads: of the session, which then does not spin between its calls, so that others can
            be timed beside it; None: ONNX Runtime's defaults.
        providers: of ONNX Runtime.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
            options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = ort.InferenceSession(str(path), options, providers=list(providers))
        [taken] = self.session.get_inputs()
        self._name = taken.name
        self._takes_frames = taken.type == "tensor(uint8)"
        self._dtype = np.float16 if taken.type == "tensor(float16)" else np.float32
        height, width = taken.shape[1:3] if self._takes_frames else taken.shape[2:4]
        self._size = (int(width), int(height))
        self._grey = not self._takes_frames and taken.shape[1] == 1

    def __call__(self, image: Image) -> Image:
        """Translate one frame, uint8 [H, W, 3] BGR, to the same size."""
        return self.finish(self.infer(self.prepare(image)), image)

    def prepare(self, image: Image) -> NDArray[Any]:
        """What the session takes of a frame: float [1, C, h, w], or uint8 [1, h, w, 3]."""
        small = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        if self._takes_frames:
            frames: NDArray[Any] = small[np.newaxis]
            return frames
        code = cv2.COLOR_BGR2GRAY if self._grey else cv2.COLOR_BGR2RGB
        floats = np.atleast_3d(cv2.cvtColor(small, code)).astype(self._dtype) / 127.5 - 1
        return np.ascontiguousarray(floats.transpose(2, 0, 1)[np.newaxis], self._dtype)

    def infer(self, batch: NDArray[Any]) -> NDArray[Any]:
        """What the session gives for what `prepare` gave."""
        drawn: NDArray[Any] = self.session.run(None, {self._name: batch})[0]
        return drawn

    def finish(self, drawn: NDArray[Any], image: Image) -> Image:
        """What the session gave as uint8 [H, W, 3] BGR of the frame's size."""
        height, width = image.shape[:2]
        small = drawn[0] if self._takes_frames else _as_picture(drawn)
        result: Image = cv2.resize(small, (width, height))
        return result


def _as_picture(drawn: NDArray[Any]) -> Image:
    levels = (drawn[0].transpose(1, 2, 0).astype(np.float32) + 1) * 127.5
    picture = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    code = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_GRAY2BGR
    result: Image = cv2.cvtColor(picture, code)
    return result


class QueuedCamera:
    """A camera with a driver's queue: holds the oldest frames, and drops new ones when it is full.

    A thread stands for the camera's hardware; V4L2 does the same with its buffers.

    Args:
        size_px: (height, width).
        fps: of the camera.
        waiting: how many frames the queue holds. OpenCV asks V4L2 for four buffers, one of which
            is in the reader's hand: three wait.
    """

    def __init__(self, size_px: tuple[int, int], fps: float, waiting: int) -> None:
        self._source = SyntheticSource(size_px, fps=fps)
        self._waiting: deque[Frame] = deque()
        self._most = waiting
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)

    def read(self) -> Frame:
        """The oldest frame that waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            return self._waiting.popleft()

    def _run(self) -> None:
        while (frame := self._source.read()) is not None:
            with self._changed:
                if len(self._waiting) < self._most:
                    self._waiting.append(frame)
                    self._changed.notify_all()

    def __enter__(self) -> QueuedCamera:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._source.interrupt()
        self._thread.join()


def live_ages_ms(network: PlainNetwork, camera: QueuedCamera, seconds: float) -> list[float]:
    """Age of each frame when the loop has shown it; the first second is left out.

    Args:
        network: what the loop runs.
        camera: not yet started.
        seconds: how long to run.
    """
    ages_ms: list[float] = []
    with camera:
        started_s = time.monotonic()
        while (now_s := time.monotonic() - started_s) < seconds:
            frame = camera.read()
            network(frame.image)
            if now_s > 1.0:
                ages_ms.append((time.perf_counter_ns() - frame.captured_at_ns) / 1e6)
    return ages_ms


def file_fps(network: PlainNetwork, video: Path, result: Path, frames: int) -> float:
    """Frames per second of the loop that reads a video, translates it and writes another.

    Args:
        network: what the loop runs.
        video: read from its beginning.
        result: a video file to write, mp4v.
        frames: how many.
    """
    reader = cv2.VideoCapture(str(video))
    width = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
    codec = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(result), codec, 25.0, (width, height))
    started_s = time.perf_counter()
    done = 0
    while done < frames:
        given, image = reader.read()
        if not given:
            break
        writer.write(network(np.asarray(image, np.uint8)))
        done += 1
    writer.release()
    reader.release()
    return done / (time.perf_counter() - started_s)
