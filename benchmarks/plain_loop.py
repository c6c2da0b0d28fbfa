"""The peer of the live benchmark: what one writes in an afternoon with OpenCV and ONNX Runtime.

`read`, resize, scale to -1..1 in numpy, `InferenceSession.run` with default options on what
`torch.onnx.export` made of the generator, scale back, resize, show: one after the other. Frames
come out of a queue, as V4L2 and FFmpeg have one, and nobody empties it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.frame import Frame, Image
from runtime.sources.synthetic import SyntheticSource


def export_plainly(checkpoint: Path, path: Path) -> None:
    """Write a run's generator as `torch.onnx.export` makes it: float32 [1, 3, H, W], -1 to 1.

    Args:
        checkpoint: a run's folder or a `generator.safetensors`.
        path: the ONNX file.
    """
    import torch

    from export.checkpoints import open_checkpoint
    from export.to_onnx import quiet_exporter

    loaded = open_checkpoint(checkpoint)
    size_px = loaded.size_px
    picture = torch.zeros((1, loaded.input_channels, size_px, size_px))
    with quiet_exporter():
        torch.onnx.export(loaded.generator, (picture,), str(path), dynamo=True, verbose=False)


class PlainNetwork:
    """The session and the numpy around it.

    Args:
        path: as `export_plainly` writes it, or one of our own frame-in frame-out files.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        self._session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        [taken] = self._session.get_inputs()
        self._name = taken.name
        self._takes_frames = taken.type == "tensor(uint8)"
        height, width = taken.shape[1:3] if self._takes_frames else taken.shape[2:4]
        self._size = (int(width), int(height))

    def __call__(self, image: Image) -> Image:
        """Translate one frame, uint8 [H, W, 3] BGR, to the same size."""
        small = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        if self._takes_frames:
            translated = self._session.run(None, {self._name: small[np.newaxis]})[0][0]
        else:
            translated = self._run_float(small)
        height, width = image.shape[:2]
        result: Image = cv2.resize(translated, (width, height))
        return result

    def _run_float(self, small: Image) -> Image:
        rgb = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        floats = rgb.astype(np.float32) / 127.5 - 1
        batch = np.ascontiguousarray(floats.transpose(2, 0, 1)[np.newaxis])
        drawn: NDArray[np.float32] = self._session.run(None, {self._name: batch})[0]
        levels = (drawn[0].transpose(1, 2, 0) + 1) * 127.5
        rgb = np.clip(np.round(levels), 0, 255).astype(np.uint8)
        result: Image = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
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
