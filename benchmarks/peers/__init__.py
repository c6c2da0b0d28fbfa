"""The peers: what else runs the same generator, each set up as its own documentation says.

`peers_of` opens them. Each draws the picture that our FP32 export draws, from the same weights, at
the same size, with as many threads. On a GPU, PyTorch and ONNX Runtime take CUDA; that was
written after their documentation and has not been run yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.peers.onnx_graphs import onnxruntime_row, opencv_loop_row, openvino_row
from benchmarks.peers.pytorch import torch_compile_row, torch_row
from benchmarks.peers.rows import AUTO, DEVICES, FP16, FP32, Asked, PeerRow
from benchmarks.peers.stock import Size
from benchmarks.peers.trtexec import PROGRAM, DeviceFigures, DeviceRow
from benchmarks.rounds.rows import PEER, NotRun
from runtime.artifact import ArtifactMeta
from runtime.errors import ModelError, UserError

if TYPE_CHECKING:
    from export.checkpoints import Checkpoint

__all__ = ["PEERS", "DeviceFigures", "DeviceRow", "PeerRow", "check_peers", "peers_of"]

PEERS: Mapping[str, str] = {
    "torch": "PyTorch, eager",
    "torch_compile": "torch.compile",
    "openvino": "OpenVINO, as torch exports it",
    "onnxruntime_stock": "ONNX Runtime, as torch exports it",
    "opencv_loop": "a plain OpenCV loop",
    PROGRAM: "trtexec on our file",
}
"""In the order of the tables, with what people call them."""

PeerResult: TypeAlias = "PeerRow | DeviceRow | NotRun"

_ROWS: Mapping[str, Callable[[Asked], PeerRow]] = {
    "torch": torch_row,
    "torch_compile": torch_compile_row,
    "openvino": openvino_row,
    "onnxruntime_stock": onnxruntime_row,
    "opencv_loop": opencv_loop_row,
}


def check_peers(wanted: Sequence[str]) -> None:
    """Refuse a name that is no peer.

    Raises:
        UserError: one is not in `PEERS`.
    """
    for name in wanted:
        if name not in PEERS:
            raise UserError(f"no peer is called {name!r}", f"some of {', '.join(PEERS)}", "see -h")


def peers_of(
    checkpoint: Path | None,
    wanted: Sequence[str],
    *,
    threads: int,
    folder: Path,
    frame_size_px: Size | None = None,
    generator: str = "",
    like: ArtifactMeta | None = None,
    models: Sequence[Path] = (),
    precision: str = FP32,
    device: str = AUTO,
    stock: Path | None = None,
) -> list[PeerResult]:
    """Open the peers of one generator.

    Args:
        checkpoint: a run's folder or a checkpoint, ours or another's; None: there is none, and
            only trtexec, which takes `models`, can run.
        wanted: names of `PEERS`.
        threads: CPU threads of one inference, of each.
        folder: where the graph that torch exports is kept.
        frame_size_px: (height, width) of the frames; None: as `like`, else as trained.
        generator: what rows of one generator have in common.
        like: the contract of the export that they are compared with: its sizes, and whether
            BatchNorm takes each picture's own statistics.
        models: files of ours, of which trtexec makes a row each.
        precision: `fp32`, or `fp16` on a GPU.
        device: `auto`, `cpu` or `cuda`: of the peers that can take either.
        stock: a graph that torch exported of this checkpoint at this size before; None, and
            where BatchNorm takes each picture's own statistics: it is exported into `folder`.

    Returns:
        One result for each name of `wanted`, in their order, but for trtexec one for each of
        `models`. A `DeviceRow` has no stages of the host: see there. Whoever called closes them.

    Raises:
        UserError: a name, a precision or a device that there is not.
    """
    check_peers(wanted)
    for given, known in ((precision, (FP32, FP16)), (device, DEVICES)):
        if given not in known:
            raise UserError(
                f"no such setting for the peers: {given!r}", ", ".join(known), "see -h"
            )
    results: list[PeerResult] = []
    opened: Checkpoint | UserError | None = None
    for peer in wanted:
        if peer == PROGRAM:
            results += _device_rows(models, generator)
            continue
        name = peer if precision == FP32 else f"{peer} {precision.upper()}"
        opened = opened or _open(checkpoint)
        try:
            if isinstance(opened, UserError):
                raise opened
            sizes = _sizes(opened, frame_size_px, like)
            asked = Asked(
                peer=peer,
                name=name,
                generator=generator,
                checkpoint=opened,
                frame_size_px=sizes[0],
                network_size_px=sizes[1],
                batch_statistics=like is not None and like.norm_stats == "batch",
                precision=precision,
                threads=threads,
                device=device,
                folder=folder,
                stock=stock,
            )
            results.append(_ROWS[peer](asked))
        except UserError as error:
            results.append(NotRun(name, error, PEER, peer, generator))
    return results


def _open(path: Path | None) -> Checkpoint | UserError:
    if path is None:
        return ModelError(
            "the peers run a checkpoint, and none belongs to this model",
            "the run that it was exported from",
            "name the run's folder as well",
        )
    from export.checkpoints import open_checkpoint
    from trainer.errors import TrainerError

    try:
        return open_checkpoint(path)
    except UserError as error:
        return error
    except TrainerError as error:
        return ModelError(error.received, error.expected, error.mend)


def _sizes(
    checkpoint: Checkpoint, frame_size_px: Size | None, like: ArtifactMeta | None
) -> tuple[Size, Size]:
    """(height, width) of the frames and of what the generator sees.

    A model of any size works at the frame's; another one sees what its export sees.
    """
    trained = (checkpoint.size_px, checkpoint.size_px)
    if like is None:
        return frame_size_px or trained, frame_size_px or trained
    frame = frame_size_px or like.frame_size_px
    follows = like.dynamic or like.network_size_px == like.frame_size_px
    return frame, frame if follows else like.network_size_px


def _device_rows(models: Sequence[Path], generator: str) -> list[PeerResult]:
    rows: list[PeerResult] = []
    for path in models:
        name = f"{PROGRAM} {path.name}"
        try:
            rows.append(DeviceRow(path, name=name, generator=generator))
        except UserError as error:
            rows.append(NotRun(name, error, PEER, PROGRAM, generator, path))
    return rows
