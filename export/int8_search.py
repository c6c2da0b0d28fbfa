"""INT8 that still draws the picture: which ranges to take, and which layers to leave out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from export.calibrate import Range, histograms_of
from export.channels_last import with_moves_channels_last
from export.frame_bytes import with_frame_bytes
from export.gate_images import GATE_IMAGES, gate_count, spread
from export.graph import Graph, at_size, drawn_by
from export.half import prepared
from export.quantize import Form, quantizable, quantized, tensors_to_calibrate
from export.settings import BEST, METHODS
from export.subpixel import PHASE, with_subpixel_upsampling
from export.ui import Track, untracked
from export.verify import Difference, Image
from runtime.errors import ModelError

SEARCH_IMAGES = 40
HARD_IMAGES = 8
RANKING_IMAGES = 3
FEW = 0.1
"""Share of the multiply-accumulates that may be left out before other ranges are tried."""
MARGIN_DB = 1.0
"""The search asks for so much more than the gate, whose pictures it does not see."""
_MARGIN_SSIM = 0.003
_FIRST_OPSET = 13
"""The first with a scale for each channel."""


@dataclass(frozen=True)
class Quality:
    """How close a form draws to FP32: the worst of the pictures of the search."""

    psnr_db: float
    ssim: float

    def reaches(self, min_psnr_db: float, min_ssim: float) -> bool:
        return self.psnr_db >= min_psnr_db and self.ssim >= min_ssim


@dataclass(frozen=True)
class LayerHarm:
    """One convolution: what INT8 in it alone does to the picture."""

    name: str
    macs: int
    macs_share: float
    """Of all convolutions."""
    quality: Quality
    """On the pictures that INT8 finds hardest."""


@dataclass(frozen=True)
class Int8Result:
    """An INT8 model, and how it came about."""

    form: Form
    method: str
    """How the ranges were chosen."""
    methods: Mapping[str, Quality]
    """What each way that was tried gives with every convolution in INT8."""
    layers: Sequence[LayerHarm]
    """The most harmful first."""
    kept: tuple[str, ...]
    kept_macs_share: float
    quality: Quality
    calibration_images: int
    model: onnx.ModelProto = field(repr=False)


class Int8Search:
    """Looks for the INT8 form of one model; measured once, asked as often as need be.

    Each convolution is tried alone. Those that hurt most are left in `form.kept_in` until the
    picture passes, and then those of them are taken back that turn out not to matter.

    Ranges are those that were seen (`minmax`) wherever few convolutions have to be left out with
    them. Cutting rare values off makes the steps finer and the usual picture better, but a lamp
    or a reflection brighter than the calibration knew is then drawn wrong by any amount.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        frames: Sequence[Image],
        form: Form,
        *,
        method: str = BEST,
        track: Track = untracked,
    ) -> None:
        """Measure ranges and harm.

        Args:
            model: FP32, frame in, frame out.
            frames: uint8 [H, W, 3] BGR of the model's frame size: the calibration pictures.
            form: for which runtime.
            method: one of `METHODS`, or `best`: `minmax` where that goes, else what needs least
                left out.
            track: wraps long work in a progress bar.

        Raises:
            ModelError: the model's opset has no INT8 with a scale for each channel.
        """
        opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        if opset < _FIRST_OPSET:
            raise ModelError(
                f"--int8 for a model of opset {opset}",
                f"opset {_FIRST_OPSET} or later, where each channel can have a scale of its own",
                "export it again with a later opset",
            )
        self._model = written_for(prepared(model), form)
        self._form = form
        self._calibration_images = len(frames)
        # Of large frames no more than the gate compares: there it is the pictures that take time.
        usual = gate_count((frames[0].shape[0], frames[0].shape[1]))
        count = SEARCH_IMAGES if usual == GATE_IMAGES else usual
        self._frames = [frames[i] for i in spread(len(frames), count)]
        self._references = drawn_by(model, self._frames)
        graph = Graph(at_size(self._model, frames[0]))
        self._groups: dict[str, list[str]] = {}
        self._macs: dict[str, int] = {}
        for node in quantizable(graph):
            group = node.name.partition(PHASE)[0]
            self._groups.setdefault(group, []).append(node.name)
            self._macs[group] = self._macs.get(group, 0) + graph.macs(node)
        self._all_macs = sum(graph.macs(node) for node in graph.convolutions())
        if not self._macs:
            raise ModelError(
                "--int8 for a model that has no convolution that INT8 can take",
                "convolutions with stored FP32 weights",
                "leave --int8 out",
            )
        histograms = histograms_of(
            self._model,
            tensors_to_calibrate(self._model),
            track(frames, f"calibrating for {form.name}"),
        )
        methods = METHODS if method == BEST else (method,)
        self._ranges = {
            method: {name: histogram.range(method) for name, histogram in histograms.items()}
            for method in methods
        }
        drawn = {
            method: self._compared(ranges)
            for method, ranges in track(list(self._ranges.items()), "INT8 throughout")
        }
        self._methods = {method: _worst(differences) for method, differences in drawn.items()}
        self._hard = _hardest(list(drawn.values()))
        self._track = track
        self._layers: dict[str, list[LayerHarm]] = {}

    def result(self, min_psnr_db: float, min_ssim: float) -> Int8Result:
        """The form with few convolutions left out that reaches this on every picture.

        Where none does, all are left out, and `quality` says how far that comes.
        """
        goal = (min_psnr_db, min_ssim)
        tried: dict[str, tuple[float, list[str], Quality]] = {}
        for method in self._ranges:
            kept, quality = self._kept_for(method, goal)
            share = sum(self._macs[name] for name in kept) / self._all_macs
            tried[method] = (share, kept, quality)
            if share <= FEW:
                break
        chosen = min(tried, key=lambda method: tried[method][0])
        share, kept, quality = tried[chosen]
        return Int8Result(
            form=self._form,
            method=chosen,
            methods=self._methods,
            layers=self._ranked(chosen),
            kept=tuple(kept),
            kept_macs_share=share,
            quality=quality,
            calibration_images=self._calibration_images,
            model=quantized(self._model, self._ranges[chosen], self._form, self._nodes(kept)),
        )

    def _kept_for(self, method: str, goal: tuple[float, float]) -> tuple[list[str], Quality]:
        quality = self._methods[method]
        return ([], quality) if quality.reaches(*goal) else self._keep_the_worst(method, goal)

    def _keep_the_worst(self, method: str, goal: tuple[float, float]) -> tuple[list[str], Quality]:
        ranges = self._ranges[method]
        kept: list[str] = []
        quality = Quality(0.0, 0.0)
        for layer in self._ranked(method):
            kept.append(layer.name)
            if not self._quality(ranges, kept, self._hard).reaches(*goal):
                continue
            quality = self._quality(ranges, kept)
            if quality.reaches(*goal):
                break
        else:
            return kept, self._quality(ranges, kept)
        for name in sorted(kept[:-1], key=lambda name: -self._macs[name]):
            fewer = [other for other in kept if other != name]
            if self._quality(ranges, fewer, self._hard).reaches(*goal):
                without = self._quality(ranges, fewer)
                if without.reaches(*goal):
                    kept, quality = fewer, without
        return kept, quality

    def _ranked(self, method: str) -> list[LayerHarm]:
        """Each convolution alone in INT8, the most harmful first; measured when first asked."""
        if method in self._layers:
            return self._layers[method]
        few = self._hard[:RANKING_IMAGES]
        found = []
        label = f"INT8 layer by layer for {self._form.name}, {method}"
        for name in self._track(list(self._macs), label):
            others = [other for other in self._macs if other != name]
            quality = self._quality(self._ranges[method], others, few)
            share = self._macs[name] / self._all_macs
            found.append(LayerHarm(name, self._macs[name], share, quality))
        self._layers[method] = sorted(found, key=lambda layer: layer.quality.psnr_db)
        return self._layers[method]

    def _nodes(self, groups: Sequence[str]) -> list[str]:
        """The convolutions that the named ones became."""
        return [name for group in groups for name in self._groups[group]]

    def _quality(
        self,
        ranges: Mapping[str, Range],
        keep: Sequence[str],
        which: Sequence[int] | None = None,
    ) -> Quality:
        return _worst(self._compared(ranges, keep, which))

    def _compared(
        self,
        ranges: Mapping[str, Range],
        keep: Sequence[str] = (),
        which: Sequence[int] | None = None,
    ) -> list[Difference]:
        which = range(len(self._frames)) if which is None else which
        model = quantized(self._model, ranges, self._form, self._nodes(keep))
        drawn = drawn_by(model, [self._frames[i] for i in which])
        return [
            Difference.between(self._references[i], picture)
            for i, picture in zip(which, drawn, strict=True)
        ]


def written_for(model: onnx.ModelProto, form: Form) -> onnx.ModelProto:
    """The same drawing by convolutions alone, which `form` can take over.

    Args:
        model: FP32, frame in, frame out, named nodes.
        form: for which runtime.
    """
    if not form.carried:
        return with_subpixel_upsampling(model)[0]
    rewritten, _ = with_subpixel_upsampling(with_frame_bytes(model), channels_last=True)
    return with_moves_channels_last(rewritten)


def with_margin(min_ssim: float) -> float:
    """A little more than `min_ssim`, and below 1."""
    return min_ssim and min(min_ssim + _MARGIN_SSIM, (1 + min_ssim) / 2)


def _worst(differences: Sequence[Difference]) -> Quality:
    return Quality(min(d.psnr_db for d in differences), min(d.ssim for d in differences))


def _hardest(tried: Sequence[Sequence[Difference]]) -> list[int]:
    """Indices of the pictures that some method draws worst."""
    worst = [min(differences, key=lambda d: d.psnr_db) for differences in zip(*tried, strict=True)]
    order = sorted(range(len(worst)), key=lambda i: worst[i].psnr_db)
    return order[:HARD_IMAGES]
