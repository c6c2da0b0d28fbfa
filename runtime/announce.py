"""What p2p-live says before a run, and after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.artifact import ArtifactMeta
from runtime.capture import Feed
from runtime.delivery import Target
from runtime.engines import EngineChoice
from runtime.stats import STAGES, Statistics
from runtime.translator import Translator


def told_choices(
    model_path: Path,
    why: str,
    engine: EngineChoice,
    translator: Translator,
    feeds: Sequence[Feed],
    targets: Sequence[Target],
) -> Iterator[str]:
    """The lines before a run: what was chosen, and why."""
    meta = translator.meta
    yield f"model   {model_path}, {meta.generator} {meta.precision}, {_told_size(meta)} ({why})"
    yield f"engine  {translator.description} (chosen: {engine.reason})"
    for feed in feeds:
        yield "source  " + (f"{feed.name}: " if feed.name else "") + feed.source.description
    for target in targets:
        of_source = f"{target.source}: " if target.source else ""
        yield f"sink    {of_source}{target.sink.description}"


def _told_size(meta: ArtifactMeta) -> str:
    height, width = meta.frame_size_px
    if not meta.dynamic:
        return f"{width}x{height}"
    return f"any size in steps of {meta.size_multiple}, tuned for {width}x{height}"


def told_mode(mode: str, live: bool) -> str:
    if mode == "throughput":
        return "throughput (every frame, in order; the stages overlap)"
    if live:
        return "latency (the newest frame; older ones are dropped)"
    return "latency (every frame, one after the other)"


def told_result(stats: Statistics, stopped: bool) -> str:
    summary = stats.summary()
    how = "stopped" if stopped else "done"
    return (
        f"{how}: {stats.frames_in} frames in, {stats.frames_out} out, "
        f"{stats.dropped} dropped, {summary['fps']:.1f} fps; ms p50/p99: "
        + ", ".join(
            f"{stage} {summary[f'{stage}_p50_ms']:.1f}/{summary[f'{stage}_p99_ms']:.1f}"
            for stage in STAGES
        )
    )
