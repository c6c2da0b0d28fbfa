"""The least time that a machine could take for a network, and the share of it that a row reaches.

Source: Williams, Waterman, Patterson 2009, "Roofline: An Insightful Visual Performance Model for
Multicore Architectures". Each layer takes at least as long as its products at the peak of its
precision, and at least as long as its bytes at the bandwidth of the level of memory that could
hold them; layers come one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.roofs.graph_work import FRAMES, Layer, Work
from benchmarks.roofs.peaks import Peaks

COMPUTE, MEMORY = "compute", "memory"

MEANINGS = {
    "roof": "the least time that this machine could take (Williams et al. 2009, Roofline): of "
    "each layer the longer of its multiply-accumulates at the best measured rate of its precision "
    "and its bytes at the best measured bandwidth, summed over the layers",
    "roof.share": "least_ms / got_ms, never clipped: above 1 means that the peak was measured too "
    "low (a busy machine), or that the runtime does with fewer products than are counted",
    "roof.macs": "multiply-accumulates counted directly, at each output pixel of a convolution "
    "and each input pixel of a transposed one; Winograd or FFT convolutions do with fewer, and "
    "may beat the roof",
    "roof.moved_bytes": "weights, inputs and outputs of convolutions and matrix products, each "
    "once, in their narrowest type on the way; all that lies between is taken as fused",
    "roof.product_peak": "a layer's peak is that of its precision, or of a wider one where this "
    "machine is faster in that",
    "roof.memory_peak": "copy, triad and reading, read + written bytes, write-allocate not "
    "counted (as STREAM); what fits into a cache gets the bandwidth of the cache",
}


@dataclass(frozen=True)
class LayerTime:
    """One layer at the roof, in milliseconds."""

    layer: Layer
    compute_ms: float
    memory_ms: float
    peak: str
    """The precision whose peak it was given; empty where nothing is multiplied."""

    @property
    def least_ms(self) -> float:
        """The longer of both."""
        return max(self.compute_ms, self.memory_ms)

    @property
    def bound(self) -> str:
        """`COMPUTE` or `MEMORY`: what the layer waits for at best."""
        return COMPUTE if self.compute_ms >= self.memory_ms else MEMORY


@dataclass(frozen=True)
class RoofShare:
    """How near a row comes to the least time, in milliseconds."""

    macs: int
    moved_bytes: int
    compute_ms: float
    """Of all layers, were memory infinitely fast."""
    memory_ms: float
    """Of all layers, were products free."""
    least_ms: float
    """The sum of the longer of both, layer by layer."""
    bound: str
    """Which kind of layers makes up the most of `least_ms`."""
    got_ms: float
    share: float
    """`least_ms / got_ms`; not clipped."""
    peaks_used: dict[str, str]
    """By precision of the layers: the one whose peak they were given."""
    fault: str = ""
    """What a share above 1 means; else empty."""

    def to_json(self) -> dict[str, Any]:
        """The field `roof` of a row."""
        return asdict(self)


def layer_times(work: Work, peaks: Peaks) -> list[LayerTime]:
    """Each layer at the roof, in the order of the graph.

    Raises:
        UserError: a layer is in a precision that was not measured.
    """
    return [_layer_time(layer, peaks) for layer in work.layers]


def share(work: Work, peaks: Peaks, infer_ms: float) -> RoofShare:
    """Compare a row with the roof.

    Args:
        work: of one inference.
        peaks: measured with the row's number of threads.
        infer_ms: what an inference took: the median.

    Raises:
        UserError: a layer is in a precision that was not measured.
        ValueError: `infer_ms` is not above 0.
    """
    if infer_ms <= 0:
        raise ValueError(f"an inference of {infer_ms} ms")
    times = layer_times(work, peaks)
    least_ms = sum(time.least_ms for time in times)
    compute_bound_ms = sum(time.least_ms for time in times if time.bound == COMPUTE)
    reached = least_ms / infer_ms
    return RoofShare(
        macs=work.macs,
        moved_bytes=work.moved_bytes,
        compute_ms=sum(time.compute_ms for time in times),
        memory_ms=sum(time.memory_ms for time in times),
        least_ms=least_ms,
        bound=COMPUTE if compute_bound_ms * 2 >= least_ms else MEMORY,
        got_ms=infer_ms,
        share=reached,
        peaks_used={time.layer.precision: time.peak for time in times if time.peak},
        fault=_fault(reached),
    )


def roof_table(peaks: Peaks, rows: Sequence[tuple[str, RoofShare]]) -> RenderableType:
    """The peaks, then each row (name and share) beside the least time."""
    parts: list[RenderableType] = [peaks_table(peaks)]
    if rows:
        parts += [Text(), _shares_table(rows)]
    parts += [Text(f"warning: {name}: {told.fault}") for name, told in rows if told.fault]
    return Group(*parts)


def peaks_table(peaks: Peaks) -> Table:
    """What the machine reaches at most, and by which library."""
    threads = f"{peaks.threads} thread{'' if peaks.threads == 1 else 's'}"
    table = _table(f"roof: {peaks.device}, {threads}", "peak", "best", "median", "by")
    for precision, rate in peaks.products.items():
        by = f"{rate.by}; {rate.note}" if rate.note else rate.by
        table.add_row(f"{precision}, G MAC/s", f"{rate.best:.1f}", f"{rate.p50:.1f}", by)
    for level in (peaks.memory, *reversed(peaks.caches)):
        for name, rate in level.passes.items():
            where = f"{name} of {_size(level.footprint_bytes)}, GB/s"
            table.add_row(where, f"{rate.best:.1f}", f"{rate.p50:.1f}", rate.by)
    return table


def layers_table(name: str, work: Work, peaks: Peaks, most: int = 10) -> Table:
    """The layers that need the most time at the roof, and the sum of all."""
    times = layer_times(work, peaks)
    title = f"{name}: the layers that need the most time, of {len(times)}"
    columns = ("layer", "in", "M MAC", "MB", "bound by", "least ms", "share")
    table = _table(title, *columns)
    whole_ms = sum(time.least_ms for time in times)
    for time in sorted(times, key=lambda time: -time.least_ms)[:most]:
        layer = time.layer
        kind = layer.name if layer.kind == FRAMES else f"{layer.name} ({layer.kind})"
        table.add_row(
            Text(kind),
            layer.precision or "-",
            f"{layer.macs / 1e6:.1f}",
            f"{layer.moved_bytes / 1e6:.2f}",
            time.bound,
            f"{time.least_ms:.3f}",
            f"{time.least_ms / whole_ms:.0%}",
        )
    table.add_section()
    table.add_row(
        "all",
        "/".join(work.by_precision()) or "-",
        f"{work.macs / 1e6:.1f}",
        f"{work.moved_bytes / 1e6:.2f}",
        "",
        f"{whole_ms:.3f}",
        "100%",
        style="bold",
    )
    return table


def _layer_time(layer: Layer, peaks: Peaks) -> LayerTime:
    compute_ms, used = 0.0, ""
    if layer.macs:
        rate, used = peaks.product_rate(layer.precision)
        compute_ms = layer.macs / rate / 1e6
    memory_ms = layer.moved_bytes / peaks.bandwidth_of(layer.moved_bytes) / 1e6
    return LayerTime(layer, compute_ms, memory_ms, used)


def _fault(reached: float) -> str:
    if reached <= 1:
        return ""
    return (
        f"a share of {reached:.2f} is above 1: the peak was measured too low, measure it again "
        "while nothing else runs (or the runtime computes with fewer products, as Winograd does)"
    )


def _shares_table(rows: Sequence[tuple[str, RoofShare]]) -> Table:
    columns = ("row", "G MAC", "MB", "bound by", "least ms", "got ms", "share")
    table = _table("rows beside the roof", *columns)
    for name, told in rows:
        table.add_row(
            Text(name),
            f"{told.macs / 1e9:.3f}",
            f"{told.moved_bytes / 1e6:.2f}",
            told.bound,
            f"{told.least_ms:.3f}",
            f"{told.got_ms:.3f}",
            Text(f"{told.share:.1%}", style="bold red" if told.fault else ""),
        )
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(first, overflow="fold")
    for other in others:
        words = other in ("by", "in", "bound by")
        table.add_column(other, justify="left" if words else "right", overflow="fold")
    return table


def _size(count: int) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"
