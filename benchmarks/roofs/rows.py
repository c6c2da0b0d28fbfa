"""How near each row comes to the least time that this machine could take."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.trtexec import DeviceRow
from benchmarks.roofs.graph_work import Work, work_of
from benchmarks.roofs.peaks import CPU, CUDA, Peaks
from benchmarks.roofs.roofline import share
from benchmarks.rounds.measure import Measured, Result
from benchmarks.rounds.rows import OURS, NotRun, Row
from runtime.errors import UserError

_OF_A_GPU = ("CUDA", "TensorRT")
_FP32 = "fp32"


def device_of(rows: Sequence[Row | DeviceRow | NotRun]) -> str:
    """Whose peak is measured: the GPU's if one of the rows of ours is on it."""
    ours = [row for row in rows if not isinstance(row, NotRun) and row.role == OURS]
    return CUDA if any(_device(row.engine) == CUDA for row in ours) else CPU


def roof_shares(
    results: Sequence[Result], peaks: Peaks, device: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The share of each row on the peaks' device, by its name; and what there is to warn of.

    A row of ours is held to the work of its own ONNX file, a peer to that of our FP32 file of the
    same generator, which draws the same picture. Without one it has no share.

    Args:
        results: of all rows.
        peaks: of the device.
        device: as `device_of` has it.
    """
    measured = [result for result in results if isinstance(result, Measured)]
    fp32 = {
        result.row.generator: result.row.file
        for result in reversed(measured)
        if result.row.role == OURS and result.row.precision == _FP32 and _is_onnx(result.row.file)
    }
    works: dict[Path, Work] = {}
    shares: dict[str, dict[str, Any]] = {}
    warnings: list[str] = []
    for result in measured:
        row = result.row
        file = row.file if row.role == OURS else fp32.get(row.generator)
        if file is None or not _is_onnx(file) or _device(row.engine) != device:
            continue
        try:
            if file not in works:
                works[file] = work_of(file)
            told = share(works[file], peaks, median(chain.from_iterable(result.alone_ms)))
        except UserError as error:
            warnings.append(f"{row.name} has no share of the roof: {error}")
            continue
        shares[row.name] = told.to_json()
        if told.fault:
            warnings.append(f"{row.name}: {told.fault}")
    return shares, warnings


def _is_onnx(file: Path | None) -> bool:
    return file is not None and file.suffix.lower() == ".onnx"


def _device(engine: str) -> str:
    return CUDA if any(word in engine for word in _OF_A_GPU) else CPU
