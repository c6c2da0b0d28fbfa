"""INT8 as ONNX Runtime's quantiser makes it when nobody says how: what the search is held against.

`quantize_static` with its defaults: ranges from the least and the largest value that was seen, one
scale for a whole tensor, every operator that it knows, the graph as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.exports.rows import Export, Quality, Row
from benchmarks.paths import without_paths
from export.gate_images import GateImages, calibration_of_folder, images_of_folder
from export.verify import Difference, Image
from runtime.artifact import INPUT_NAME, ArtifactMeta
from runtime.errors import ModelError, SourceError
from runtime.translator import Translator

FILE = "quantize_static"


def naive_row(
    export: Export, fp32: Path, calibration: Path, images: Path, target: Path
) -> tuple[Row, Path | None]:
    """Quantise `fp32`, and compare it with `fp32` itself on the gate's pictures.

    Args:
        export: what the folder holds besides.
        fp32: the export's `model.onnx`.
        calibration: folder of pictures, as `p2p-export --calibration` takes it.
        images: folder of pictures, as `p2p-export --images` takes it.
        target: where the quantised file goes.

    Returns:
        The row, and the file where ONNX Runtime runs it.
    """
    row = Row("naive", FILE)
    folders = [target.parent, fp32.parent]
    try:
        with Translator.load(fp32) as reference:
            meta = reference.meta
            direction = _direction_of(meta.training_data)
            calibrating = calibration_of_folder(calibration, meta.frame_size_px, direction, None)
            gate = images_of_folder(images, meta.frame_size_px, direction)
            references = reference.batch(gate.frames)
        quantize(fp32, target, meta, calibrating.frames)
        with Translator.load(target) as naive:
            drawn = naive.batch(gate.frames)
    except SourceError as error:
        row.lacks.append(without_paths(str(error)))
        return row, None
    except ModelError as error:
        row.notes.append(without_paths(str(error), folders))
        return row, None
    differences = list(map(Difference.between, references, drawn))
    row.quality = Quality(
        min(difference.psnr_db for difference in differences),
        min(difference.ssim for difference in differences),
    )
    row.onnx_bytes = target.stat().st_size
    row.notes += _conditions(calibrating, gate, export.pictures)
    return row, target


def _direction_of(training: str) -> str:
    """As p2p-export takes it where it is not told: as trained, else AtoB."""
    return "BtoA" if training.rfind("BtoA") > training.rfind("AtoB") else "AtoB"


def _conditions(calibrating: GateImages, gate: GateImages, pictures: str) -> list[str]:
    compared = without_paths(gate.origin)
    told = [
        "onnxruntime.quantization.quantize_static with its defaults, calibrated on "
        f"{without_paths(calibrating.origin)}; compared with model.onnx on {compared}"
    ]
    if compared != pictures:
        told.append(f"the other rows were compared on other pictures: {pictures or 'unknown'}")
    return told


def quantize(fp32: Path, target: Path, meta: ArtifactMeta, frames: Sequence[Image]) -> None:
    """Quantise with the defaults of `onnxruntime.quantization`.

    Args:
        fp32: takes uint8 [N, H, W, 3] as `frames`.
        target: where the quantised file goes.
        meta: the contract of `fp32`.
        frames: uint8 [H, W, 3] BGR of its frame size.

    Raises:
        ModelError: the quantiser refused it, in its own words.
    """
    from onnxruntime.quantization import quantize_static

    try:
        with _no_advice():
            quantize_static(str(fp32), str(target), _Reader(frames, meta))
    except Exception as error:  # whatever it stumbles over: it has no error class of its own
        raise ModelError(
            f"quantize_static refused {fp32.name}: {type(error).__name__}: {error}",
            "a graph that it quantises as it is",
            "take p2p-export --int8",
        ) from error


class _Reader:
    """The frames, as `CalibrationDataReader` gives them."""

    def __init__(self, frames: Sequence[Image], meta: ArtifactMeta) -> None:
        self._frames = iter(frames)
        self._copies = 1 if meta.dynamic else meta.batch

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[type-arg]
        frame = next(self._frames, None)
        return None if frame is None else {INPUT_NAME: np.repeat(frame[None], self._copies, 0)}


@contextmanager
def _no_advice() -> Iterator[None]:
    """Without the quantiser's lines on how to do better, which is not wanted here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
