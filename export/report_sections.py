"""What a parity report tells beside the pictures: what was kept, what hurts, what was built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from export.report import Section

if TYPE_CHECKING:
    from export.half_search import HalfResult
    from export.int8_search import Int8Result, Quality
    from export.to_tensorrt import BuiltEngine


def half_section(result: HalfResult) -> Section | None:
    """The nodes that stayed in FP32; None where there are none."""
    if not result.kept:
        return None
    return Section(
        "FP16: what stays in FP32",
        "Found by running the FP32 graph and looking at the values of every tensor.",
        ("node", "operator", "why"),
        [(kept.node, kept.op_type, kept.why) for kept in result.kept],
    )


def int8_sections(result: Int8Result, origin: str) -> list[Section]:
    """How the ranges were chosen, and what INT8 in each layer alone does."""
    target = result.form.name
    methods = Section(
        f"INT8 for {target}: how the ranges are chosen",
        f"Every convolution in INT8, against FP32, the worst of the search's pictures. "
        f"{result.calibration_images} pictures: {origin}.",
        ("ranges", "PSNR, dB", "SSIM", "taken"),
        [
            (method, *_figures(quality), "yes" if method == result.method else "")
            for method, quality in result.methods.items()
        ],
    )
    layers = Section(
        f"INT8 for {target}: layer by layer",
        f"INT8 in this one convolution alone. {len(result.kept)} stay in "
        f"{result.form.kept_in}, {100 * result.kept_macs_share:.1f} % of the "
        "multiply-accumulates.",
        ("convolution", "MACs, M", "share", "PSNR, dB", "SSIM", "kept"),
        [
            (
                layer.name,
                f"{layer.macs / 1e6:.1f}",
                f"{100 * layer.macs_share:.1f} %",
                *_figures(layer.quality),
                result.form.kept_in if layer.name in result.kept else "",
            )
            for layer in result.layers
        ],
    )
    return [methods, layers]


def engine_section(built: BuiltEngine) -> Section:
    """The layers of an engine with their types, as its builder logged them."""
    return Section(
        f"Layers of {built.path.name}",
        f"{built.meta.engine_library}, {built.size_bytes / 1e6:.1f} MB, built in "
        f"{built.build_s:.1f} s.",
        ("layer", "kind", "takes", "gives"),
        [
            (layer.name, layer.kind, ", ".join(layer.input_types), ", ".join(layer.output_types))
            for layer in built.layers
        ],
    )


def speed_section(times_ms: Mapping[str, float]) -> Section:
    """Time of a frame in each form."""
    return Section(
        "Time of a frame on this machine",
        "Medians of interleaved rounds; benchmarks/latency.py measures it properly.",
        ("file", "ms"),
        [(name, f"{ms:.1f}") for name, ms in times_ms.items()],
    )


def _figures(quality: Quality) -> tuple[str, str]:
    return f"{quality.psnr_db:.1f}", f"{quality.ssim:.4f}"
