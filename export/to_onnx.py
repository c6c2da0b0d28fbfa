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
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.resampling import Resampling
from export.verify import Size
from runtime.artifact import INPUT_NAME, META_KEY, OUTPUT_NAME, ArtifactMeta
from runtime.files import written_whole
from trainer.generators.retouch import Layer, RetouchingGenerator

OPSET = 18
"""TensorRT 10.3 (JetPack 6) parses opset 9 to 20."""
MAX_IR_VERSION = 10
_MAX_SIDE_PX = 8192


class FrameInFrameOut(nn.Module):
    """A generator between what a camera gives and what a screen takes.

    `forward` maps uint8 [N, H, W, 3], BGR, 0 to 255, to the same; inside, the generator sees
    float [N, C, h, w], RGB (or grey, as Pillow's mode L), -1 to 1. The order of the steps is the
    one that TensorRT's parser accepts: cast before any transpose of the frame, and back to uint8
    as the very last step.
    """

    reversed_channels: Tensor
    grey_weights: Tensor

    def __init__(
        self,
        generator: nn.Module,
        *,
        network_size_px: tuple[int, int] | None = None,
        input_channels: int = 3,
        output_channels: int = 3,
    ) -> None:
        """Wrap `generator`.

        Args:
            generator: float [N, C, h, w] to float [N, C', h, w].
            network_size_px: (h, w) that frames are resized to and back from, bilinear without
                antialias; None: the frame's own size.
            input_channels: 3, or 1 for grey.
            output_channels: 3, or 1 for grey, which comes out as three equal channels.
        """
        super().__init__()
        self.generator = generator
        self.network_size_px = network_size_px
        self.input_channels = input_channels
        self.output_channels = output_channels
        self.register_buffer("reversed_channels", torch.tensor([2, 1, 0]), persistent=False)
        bgr_weights = torch.tensor([0.114, 0.587, 0.299]).reshape(1, 3, 1, 1)
        self.register_buffer("grey_weights", bgr_weights, persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        bgr = frames.to(torch.float32).permute(0, 3, 1, 2)
        if self.input_channels == 1:
            picture = (bgr * self.grey_weights).sum(dim=1, keepdim=True).round()
        else:
            picture = bgr.index_select(1, self.reversed_channels)
        drawn = self.generator(self._to_network(picture) * (1 / 127.5) - 1.0)
        if self.network_size_px is not None:
            drawn = functional.interpolate(drawn, size=bgr.shape[2:], mode="bilinear")
        levels = (drawn * 127.5 + 127.5).clamp(0.0, 255.0).round()
        if self.output_channels == 1:
            bgr_out = torch.cat([levels, levels, levels], dim=1)
        else:
            bgr_out = levels.index_select(1, self.reversed_channels)
        return bgr_out.permute(0, 2, 3, 1).to(torch.uint8)

    def _to_network(self, picture: Tensor) -> Tensor:
        if self.network_size_px is None:
            return picture
        return functional.interpolate(picture, size=self.network_size_px, mode="bilinear")


class RetouchedFrame(nn.Module):
    """A retouching generator that looks at a small copy of a frame, and changes the frame itself.

    `forward` maps uint8 [N, H, W, 3], BGR, 0 to 255, to the same. The copy has the averages of
    the pixels that it covers; gain and offsets come back by bilinear interpolation, so that there
    are no seams and the frame keeps its detail. With gain g and offset o of values of -1 to 1, a
    level of 0 to 255 becomes g * (level - 127.5) + 127.5 * o + 127.5.
    """

    reversed_channels: Tensor

    def __init__(
        self, generator: RetouchingGenerator, frame_size_px: Size, network_size_px: Size
    ) -> None:
        """Wrap `generator`.

        Args:
            generator: float [N, 3, h, w], RGB, -1 to 1, to what is to be done to the frame.
            frame_size_px: (H, W).
            network_size_px: (h, w).
        """
        super().__init__()
        self.generator = generator.eval()
        copy_px = generator.copy_size_px(network_size_px)
        self.small = Resampling(frame_size_px, copy_px, torch.eye(3))
        with torch.no_grad():
            example = generator.retouch(torch.zeros(1, 3, *copy_px))
        self.gain = _enlarging(example.gain, frame_size_px, 1.0)
        self.offsets = nn.ModuleList(
            _enlarging(offset, frame_size_px, 127.5) for offset in example.offsets
        )
        self.register_buffer("reversed_channels", torch.tensor([2, 1, 0]), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        levels = frames.to(torch.float32)
        small = self.small(levels).permute(0, 3, 1, 2).index_select(1, self.reversed_channels)
        retouch = self.generator.retouch(small * (1 / 127.5) - 1.0)
        drawn: Tensor = (levels - 127.5) * self.gain(_as_frames(retouch.gain.values))
        # The first offset is of RGB; a cast to bytes cuts off what is behind the point.
        lifts = [(127.5 + 0.5) / 127.5] + [0.0] * (len(retouch.offsets) - 1)
        for offset, enlarging, lift in zip(retouch.offsets, self.offsets, lifts, strict=True):
            values = offset.values + lift if lift else offset.values
            drawn = drawn + enlarging(_as_frames(values))
        return drawn.clamp(0.0, 255.0).to(torch.uint8)


def _enlarging(layer: Layer, frame_size_px: Size, times: float) -> Resampling:
    """From a layer of a retouch, [N, h, w, K], to `times` its colours, [N, H, W, 3], BGR."""
    rgb = torch.eye(3) if layer.colours is None else layer.colours
    height, width = layer.values.shape[2:]
    return Resampling((height, width), frame_size_px, times * rgb.flip(0))


def _as_frames(x: Tensor) -> Tensor:
    """[N, K, h, w] as [N, h, w, K]."""
    return x.permute(0, 2, 3, 1)


def frame_in_frame_out(
    generator: nn.Module,
    frame_size_px: Size,
    network_size_px: Size,
    *,
    input_channels: int = 3,
    output_channels: int = 3,
    dynamic: bool = False,
) -> nn.Module:
    """A generator as uint8 [N, H, W, 3] BGR to the same, in evaluation mode.

    Args:
        generator: float [N, C, h, w] to float [N, C', h, w].
        frame_size_px: (H, W).
        network_size_px: (h, w) that the generator works at.
        input_channels: 3, or 1 for grey.
        output_channels: the same of what it draws.
        dynamic: whether frames of other sizes come too; the generator then works at theirs.
    """
    coloured = input_channels == output_channels == 3
    if isinstance(generator, RetouchingGenerator) and coloured and not dynamic:
        return RetouchedFrame(generator, frame_size_px, network_size_px).eval()
    return FrameInFrameOut(
        generator,
        network_size_px=network_size_px if network_size_px != frame_size_px else None,
        input_channels=input_channels,
        output_channels=output_channels,
    ).eval()


def folded(generator: nn.Module) -> nn.Module:
    """A copy whose BatchNorm layers are part of the convolutions before them, computed in FP32.

    Done here, not by the exporter, so that a lower precision rounds each folded weight once. The
    generators of `trainer` keep `conv` and `norm` of a block under these names. A sub-pixel
    convolution has several channels, its phases, for each one of the norm behind it.
    """
    generator = copy.deepcopy(generator).eval()
    for block in generator.modules():
        conv, norm = getattr(block, "conv", None), getattr(block, "norm", None)
        if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
            transposed = isinstance(conv, nn.ConvTranspose2d)
            phases = conv.out_channels // norm.num_features
            block.conv = fuse_conv_bn_eval(conv, _for_phases(norm, phases), transpose=transposed)
            block.norm = nn.Identity()
    return generator


def _for_phases(norm: nn.BatchNorm2d, phases: int) -> nn.BatchNorm2d:
    """The same norm in front of a depth-to-space, where a channel is `phases` neighbours."""
    if phases == 1:
        return norm
    spread = nn.BatchNorm2d(phases * norm.num_features, eps=norm.eps).eval()
    values = {
        name: tensor.repeat_interleave(phases) if tensor.ndim else tensor
        for name, tensor in norm.state_dict().items()
    }
    spread.load_state_dict(values)
    return spread


def onnx_from_generator(
    generator: nn.Module,
    path: Path,
    meta: ArtifactMeta,
    opset: int = OPSET,
    *,
    input_channels: int = 3,
    output_channels: int = 3,
) -> None:
    """Write the frame-in frame-out graph of `generator` in FP32 to `path`, with `meta` inside.

    Args:
        generator: in evaluation mode, float [N, C, H, W] -1 to 1 to the same.
        path: file to write.
        meta: its sizes, its batch and whether they are open decide the shape.
        opset: ONNX operator set.
        input_channels: of the generator: 3 (RGB) or 1 (grey).
        output_channels: the same of what it draws.
    """
    wrapped = frame_in_frame_out(
        folded(generator),
        meta.frame_size_px,
        meta.network_size_px,
        input_channels=input_channels,
        output_channels=output_channels,
        dynamic=meta.dynamic,
    )
    frames = torch.zeros((meta.batch, *meta.frame_size_px, 3), dtype=torch.uint8)
    if meta.dynamic:
        # The exporter takes a size that is 1 while it traces for a fixed one.
        sides = [max(side, 2 * meta.size_multiple) for side in meta.frame_size_px]
        frames = torch.zeros((meta.batch, *sides, 3), dtype=torch.uint8)
    with quiet_exporter():
        program = torch.onnx.export(
            wrapped,
            (frames,),
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=_open_sides(meta) if meta.dynamic else None,
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


def _open_sides(meta: ArtifactMeta) -> tuple[dict[int, object], ...]:
    multiple = meta.size_multiple
    most = _MAX_SIDE_PX // multiple
    rows, columns = torch.export.Dim("rows", max=most), torch.export.Dim("columns", max=most)
    sides: dict[int, object] = {1: multiple * rows, 2: multiple * columns}
    if meta.batch > 1:
        sides[0] = torch.export.Dim("batch", max=meta.batch)
    return (sides,)


def _forget_the_machine(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of its own work: stack traces with paths of this machine."""
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]
    del model.functions[:]


@contextmanager
def quiet_exporter() -> Iterator[None]:
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
