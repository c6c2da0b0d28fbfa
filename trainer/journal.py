"""What a run leaves to read: metrics as JSON lines, TensorBoard curves, a sample grid an epoch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from trainer.errors import TrainerError
from trainer.files import write_whole
from trainer.metrics import Quality

if TYPE_CHECKING:
    from trainer.progress import StepLosses

METRICS_FILE = "metrics.jsonl"
SAMPLES_FOLDER = "samples"
TENSORBOARD_FOLDER = "tensorboard"
_HEADER_PX = 26
_GAP_PX = 4


class Journal:
    """Writes `metrics.jsonl`, `samples/` and `tensorboard/` of one run; a context manager.

    Opening it at `first_step` forgets what a stopped run wrote of later steps.
    """

    def __init__(self, out: Path, first_step: int) -> None:
        self._out = out
        try:
            out.mkdir(parents=True, exist_ok=True)
            path = out / METRICS_FILE
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            kept = [line for line in lines if json.loads(line)["step"] <= first_step]
            write_whole(path, lambda beside: beside.write_text("".join(f"{k}\n" for k in kept)))
            self._metrics = path.open("a", encoding="utf-8")
        except OSError as error:
            raise TrainerError(
                f"{out} could not be written ({error.strerror})",
                "a folder with room that may be written to",
                "name another with --out",
            ) from error
        self._tensorboard = SummaryWriter(str(out / TENSORBOARD_FOLDER), purge_step=first_step + 1)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._metrics.close()
        self._tensorboard.close()

    def write(
        self, step: int, epoch: int, losses: StepLosses, quality: Quality | None, step_s: float
    ) -> None:
        """Note the losses of a step and, at the end of an epoch, the quality."""
        values = {f"loss/{name}": value for name, value in losses.to_dict().items()}
        if quality:
            values |= {f"held_out/{name}": value for name, value in quality.to_dict().items()}
        line = {"step": step, "epoch": epoch, "step_s": round(step_s, 4), **values}
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)

    def picture(self, step: int, epoch: int, grid: NDArray[np.uint8]) -> None:
        """Keep the sample grid of an epoch, uint8 [H, W, 3] BGR."""
        path = self._out / SAMPLES_FOLDER / f"epoch-{epoch:04d}.png"
        write_png(path, grid)
        self._tensorboard.add_image(
            "held_out", np.ascontiguousarray(grid[..., ::-1]), step, dataformats="HWC"
        )


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] BGR as PNG, whole or not at all."""
    _, data = cv2.imencode(".png", image)
    write_whole(path, lambda beside: beside.write_bytes(data.tobytes()))


def write_clip(
    path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, size_px: tuple[int, int]
) -> None:
    """Write frames uint8 [H, W, 3] BGR of `size_px` (height, width) as MPEG-4 video."""

    def write(beside: Path) -> None:
        height, width = size_px
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(beside), codec, fps, (width, height))
        if not writer.isOpened():
            raise OSError(f"OpenCV opens no video writer for {path.name}")
        for frame in frames:
            writer.write(frame)
        writer.release()

    write_whole(path, write)


def sample_grid(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    titles: Sequence[str] = ("input", "generated", "target"),
) -> NDArray[np.uint8]:
    """Rows of equally large pictures under their titles, uint8 [H, W, 3] BGR."""
    height, width = rows[0][0].shape[:2]
    columns = len(rows[0])
    grid = np.full(
        (
            _HEADER_PX + len(rows) * (height + _GAP_PX),
            columns * (width + _GAP_PX) - _GAP_PX,
            3,
        ),
        255,
        np.uint8,
    )
    for column, title in enumerate(titles):
        left = column * (width + _GAP_PX)
        at = (left + 6, _HEADER_PX - 8)
        cv2.putText(grid, title, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        for row, pictures in enumerate(rows):
            top = _HEADER_PX + row * (height + _GAP_PX)
            grid[top : top + height, left : left + width] = pictures[column]
    return grid
