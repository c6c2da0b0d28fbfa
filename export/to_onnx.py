"""From a generator to the portable artifact: an ONNX file, uint8 frame in, uint8 frame out."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from runtime.artifact import INPUT_NAME, META_KEY, OUTPUT_NAME, ArtifactMeta
from runtime.files import written_whole

OPSET = 18
"""TensorRT 10.3 (JetPack 6) parses opset 9 to 20."""
MAX_IR_VERSION = 10

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class FrameInFrameOut(nn.Module):
    """A generator between what a camera gives and what a screen takes.

    `forward` maps uint8 [N, H, W, 3], BGR, 0 to 255, to the same; inside, the generator sees
    float [N, 3, H, W], RGB, -1 to 1. The order of the steps is the one that TensorRT's parser
    accepts: cast before any transpose of the frame, and back to uint8 as the very last step.
    """

    reversed_channels: Tensor

    def __init__(self, generator: nn.Module, precision: str = "fp32") -> None:
        super().__init__()
        self.generator = generator.to(_DTYPES[precision])
        self.dtype = _DTYPES[precision]
        self.register_buffer("reversed_channels", torch.tensor([2, 1, 0]), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        bgr = frames.to(self.dtype).permute(0, 3, 1, 2)
        rgb = bgr.index_select(1, self.reversed_channels)
        drawn = self.generator(rgb * (1 / 127.5) - 1.0)
        levels = (drawn * 127.5 + 127.5).clamp(0.0, 255.0).round()
        translated: Tensor = levels.index_select(1, self.reversed_channels).permute(0, 2, 3, 1)
        return translated.to(torch.uint8)


def folded(generator: nn.Module) -> nn.Module:
    """A copy whose BatchNorm layers are part of the convolutions before them, computed in FP32.

    Done here, not by the exporter, so that the FP16 form rounds each folded weight once. The
    generators of `trainer` keep `conv` and `norm` of a block under these names.
    """
    generator = copy.deepcopy(generator).eval()
    for block in generator.modules():
        conv, norm = getattr(block, "conv", None), getattr(block, "norm", None)
        if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(conv, nn.ConvTranspose2d)
            block.conv = fuse_conv_bn_eval(conv, norm, transpose=transposed)
            block.norm = nn.Identity()
    return generator


def onnx_from_generator(
    generator: nn.Module, path: Path, meta: ArtifactMeta, opset: int = OPSET
) -> None:
    """Write the frame-in frame-out graph of `generator` to `path`, with `meta` inside.

    Args:
        generator: in evaluation mode, float [N, 3, H, W] RGB -1 to 1 to the same.
        path: file to write.
        meta: its precision decides the type of all weights, its frame size the shape.
        opset: ONNX operator set.
    """
    height, width = meta.frame_size_px
    wrapped = FrameInFrameOut(folded(generator), meta.precision).eval()
    frames = torch.zeros((1, height, width, 3), dtype=torch.uint8)
    with _quiet_exporter():
        program = torch.onnx.export(
            wrapped,
            (frames,),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model = program.model_proto
    _forget_the_machine(model)
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    save_with_meta(model, path, meta)


def save_with_meta(model: onnx.ModelProto, path: Path, meta: ArtifactMeta) -> None:
    """Write `model` to `path` with `meta` as its only metadata."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = META_KEY, meta.to_json()
    onnx.checker.check_model(model)
    with written_whole(path) as beside:
        beside.write_bytes(model.SerializeToString())


def _forget_the_machine(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of its own work: stack traces with paths of this machine."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]
    del model.functions[:]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's notes on optional packages and its own deprecations off the screen."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
