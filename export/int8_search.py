"""INT8 that still draws the picture: which ranges to take, and which layers to leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx

from export.calibrate import Histogram, Range, histograms_of
from export.gate_images import spread
from export.graph import Graph, drawn_by
from export.quantize import Form, quantizable, quantized, tensors_to_calibrate
from export.settings import BEST, METHODS
from export.subpixel import with_subpixel_upsampling
from export.ui import Track, untracked
from export.verify import Difference, Image

SEARCH_IMAGES = 8
RANKING_IMAGES = 3
_MARGIN_DB = 1.0
_MARGIN_SSIM = 0.003
"""The search asks for so much more than the gate, whose pictures it does not see."""


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


@dataclass(frozen=True)
class Int8Result:
    """An INT8 model, and how it came about."""

    form: Form
    method: str
    """How the ranges were chosen."""
    methods: dict[str, Quality]
    """What each way that was tried gives with every convolution in INT8."""
    layers: Sequence[LayerHarm]
    """The most harmful first."""
    kept: tuple[str, ...]
    kept_macs_share: float
    quality: Quality
    calibration_images: int
    model: onnx.ModelProto = field(repr=False)


def int8_that_passes(
    model: onnx.ModelProto,
    frames: Sequence[Image],
    form: Form,
    *,
    method: str,
    min_psnr_db: float,
    min_ssim: float,
    track: Track = untracked,
) -> Int8Result:
    """INT8 in `form`, with as few convolutions left out as the picture allows.

    Each convolution is tried alone; those that hurt most are left in `form.kept_in` until the
    picture passes, and then those of them are taken back that turn out not to matter.

    Args:
        model: FP32, frame in, frame out.
        frames: uint8 [H, W, 3] BGR of the model's frame size: the calibration pictures.
        form: for which runtime.
        method: one of `METHODS`, or `best`: the one of them that draws closest.
        min_psnr_db: of the worst picture, against FP32.
        min_ssim: the same.
        track: wraps long work in a progress bar.
    """
    return _Search(model, frames, form, min_psnr_db + _MARGIN_DB, _with_margin(min_ssim)).run(
        METHODS if method == BEST else (method,), track
    )


def _ranges(histograms: dict[str, Histogram], method: str) -> dict[str, Range]:
    return {name: histogram.range(method) for name, histogram in histograms.items()}


def _with_margin(min_ssim: float) -> float:
    return min_ssim and min(min_ssim + _MARGIN_SSIM, (1 + min_ssim) / 2)


class _Search:
    def __init__(
        self,
        model: onnx.ModelProto,
        frames: Sequence[Image],
        form: Form,
        min_psnr_db: float,
        min_ssim: float,
    ) -> None:
        self._model, _ = with_subpixel_upsampling(model, channels_last=form.carried)
        self._form = form
        self._calibration = frames
        self._frames = [frames[i] for i in spread(len(frames), SEARCH_IMAGES)]
        self._references = drawn_by(model, self._frames)
        self._goal = (min_psnr_db, min_ssim)
        graph = Graph(self._model)
        self._macs = {node.name: graph.macs(node) for node in quantizable(graph)}
        self._all_macs = sum(graph.macs(node) for node in graph.convolutions())

    def run(self, methods: Sequence[str], track: Track) -> Int8Result:
        name = self._form.name
        histograms = histograms_of(
            self._model,
            tensors_to_calibrate(self._model),
            track(self._calibration, f"calibrating for {name}"),
        )
        tried: dict[str, tuple[Quality, dict[str, Range]]] = {}
        for method in methods:
            ranges = _ranges(histograms, method)
            tried[method] = (self._quality(quantized(self._model, ranges, self._form)), ranges)
        chosen = max(tried, key=lambda m: (tried[m][0].reaches(*self._goal), tried[m][0].psnr_db))
        quality, ranges = tried[chosen]
        layers = self._rank(ranges, track)
        kept: list[str] = []
        if not quality.reaches(*self._goal):
            kept, quality = self._keep_the_worst(ranges, layers)
        return Int8Result(
            form=self._form,
            method=chosen,
            methods={method: quality for method, (quality, _) in tried.items()},
            layers=layers,
            kept=tuple(kept),
            kept_macs_share=sum(self._macs[name] for name in kept) / self._all_macs,
            quality=quality,
            calibration_images=len(self._calibration),
            model=quantized(self._model, ranges, self._form, kept),
        )

    def _keep_the_worst(
        self, ranges: dict[str, Range], layers: Sequence[LayerHarm]
    ) -> tuple[list[str], Quality]:
        kept: list[str] = []
        quality = Quality(0.0, 0.0)
        for layer in layers:
            kept.append(layer.name)
            quality = self._quality(quantized(self._model, ranges, self._form, kept))
            if quality.reaches(*self._goal):
                break
        for name in sorted(kept[:-1], key=lambda name: -self._macs[name]):
            fewer = [other for other in kept if other != name]
            without = self._quality(quantized(self._model, ranges, self._form, fewer))
            if without.reaches(*self._goal):
                kept, quality = fewer, without
        return kept, quality

    def _rank(self, ranges: dict[str, Range], track: Track) -> list[LayerHarm]:
        few = spread(len(self._frames), RANKING_IMAGES)
        found = []
        for name in track(list(self._macs), f"INT8 layer by layer for {self._form.name}"):
            others = [other for other in self._macs if other != name]
            alone = quantized(self._model, ranges, self._form, others)
            found.append(
                LayerHarm(
                    name,
                    self._macs[name],
                    self._macs[name] / self._all_macs,
                    self._quality(alone, few),
                )
            )
        return sorted(found, key=lambda layer: layer.quality.psnr_db)

    def _quality(self, model: onnx.ModelProto, which: Sequence[int] | None = None) -> Quality:
        which = range(len(self._frames)) if which is None else which
        drawn = drawn_by(model, [self._frames[i] for i in which])
        differences = [
            Difference.between(self._references[i], picture)
            for i, picture in zip(which, drawn, strict=True)
        ]
        return Quality(min(d.psnr_db for d in differences), min(d.ssim for d in differences))
