"""A generator as `torch.onnx.export` writes it when nobody says how: what the peers run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import ModelError
from runtime.files import written_whole

if TYPE_CHECKING:
    from torch import nn

Size = tuple[int, int]
"""Height, width."""


def export_stock(module: nn.Module, channels: int, size_px: Size, path: Path) -> None:
    """Write `module` as `torch.onnx.export` makes it, in the precision of its weights.

    Args:
        module: in evaluation mode, float [1, C, H, W] -1 to 1 to the same.
        channels: that it takes.
        size_px: (H, W), which the graph then has for good.
        path: the ONNX file, weights inside; written whole or not at all.

    Raises:
        ModelError: torch's exporter refuses the module.
        UserError: the file cannot be written.
    """
    import torch

    from export.to_onnx import quiet_exporter

    weights = next(module.parameters())
    picture = torch.zeros((1, channels, *size_px), dtype=weights.dtype, device=weights.device)
    try:
        with quiet_exporter(), written_whole(path) as beside:
            torch.onnx.export(
                module, (picture,), str(beside), dynamo=True, external_data=False, verbose=False
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ModelError(
            f"torch.onnx.export refused it: {str(error).splitlines()[0]}",
            "a generator that it can write as a graph",
            "leave out the peers that run such a graph",
        ) from error
