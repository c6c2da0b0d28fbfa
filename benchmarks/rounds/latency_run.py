"""One run of the latency benchmark: from settings to the JSON object that all else is made of."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.conditions.clocks import ClockWatch
from benchmarks.conditions.energy_turns import energy_turns
from benchmarks.conditions.environment import load_average
from benchmarks.conditions.power import PowerMeter, open_meter, power_json
from benchmarks.peers import peers_of
from benchmarks.result import Run, result_of
from benchmarks.roofs.peaks import peaks
from benchmarks.roofs.rows import device_of, roof_shares
from benchmarks.rounds import overhead
from benchmarks.rounds.ends import opened_sink, opened_source, told_uri
from benchmarks.rounds.line_up import LinedUp, LineUp, line_up
from benchmarks.rounds.measure import Measured, OnProgress, Plan, Result, measure
from benchmarks.rounds.rows import OURS, PEER, NotRun
from runtime.artifact import ArtifactMeta
from runtime.engines.threads import threads_each

_IDLE_S = 3.0


@dataclass(frozen=True)
class Settings:
    """What was asked of a benchmark."""

    source: str
    """A URI as `runtime.sources.open_source` takes it, or `builtin`."""
    sink: str
    plan: Plan
    engines: tuple[str, ...]
    """Each ONNX file is run with each of them."""
    peers: tuple[str, ...]
    threads: int | None
    """CPU threads of one inference; None: the physical cores, ours as `open_engine` has it."""
    roof: bool = False
    """Whether the machine's peaks are measured."""
    power: bool = False
    """Whether the energy of a frame is measured."""


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    result: dict[str, Any]
    failed: bool
    """Whether a model that was named did not run."""


def run_latency(
    paths: Sequence[Path],
    named: Sequence[Path],
    settings: Settings,
    around: Mapping[str, Any],
    clocks: ClockWatch,
    on_progress: OnProgress,
) -> Outcome:
    """Open the rows, measure them, close them.

    Args:
        paths: models, engines, checkpoints.
        named: those of them whose failure is one of the whole.
        settings: what was asked.
        around: the environment before the run.
        clocks: watches since then.
        on_progress: is told rounds.

    Raises:
        UserError: of the source or the sink; or nothing could be measured.
    """
    created_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    environment = dict(around)
    with ExitStack() as opened:
        meter = _idle_meter(opened) if settings.power else None
        stream = opened.enter_context(opened_source(settings.source))
        target = opened.enter_context(opened_sink(settings.sink, stream))

        def open_peers(
            checkpoint: Path | None,
            wanted: Sequence[str],
            like: ArtifactMeta | None,
            models: Sequence[Path],
        ) -> Sequence[LinedUp]:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="p2p-peers-")))
            threads = threads_each(settings.threads, 1)
            return peers_of(
                checkpoint, wanted, threads=threads, folder=folder, like=like, models=models
            )

        lined_up = line_up(
            paths,
            opened,
            engines=settings.engines,
            peers=settings.peers,
            peers_of=open_peers,
            threads=settings.threads,
        )
        found, device = None, device_of(lined_up.rows)
        if settings.roof:
            found = peaks(threads_each(settings.threads, 1), device)
        results = measure(lined_up.rows, stream, target, settings.plan, on_progress)
        measured = [result for result in results if isinstance(result, Measured)]
        if not measured:
            raise next(result.error for result in results if isinstance(result, NotRun))
        shares, faults = roof_shares(results, found, device) if found else ({}, [])
        energies = energy_turns(results, stream, target, meter) if meter else {}
        environment |= {"load_average_1m_after": load_average(), "clocks": clocks.to_json()}
        run = Run(
            created_at,
            {
                **_told(settings, paths),
                "source_description": stream.description,
                "sink_description": target.description,
                "live": stream.live,
                "rounds": [len(part) for part in measured[0].stages_ms["infer"]],
            },
            environment,
            results,
            {OURS: overhead.ours_ms(), PEER: overhead.peer_ms()},
            [*lined_up.warnings, *_busy(environment), *clocks.warnings(), *faults],
            roofs=shares,
            roof=found.to_json() if found else None,
            energies=energies,
            power=power_json(meter) if meter else None,
        )
    return Outcome(result_of(run), _failed(lined_up, results, named))


def _idle_meter(opened: ExitStack) -> PowerMeter:
    """A meter that runs, and knows what the machine takes while this process does nothing.

    Raises:
        UserError: the machine tells no power.
    """
    meter = opened.enter_context(open_meter())
    meter.measure_idle(_IDLE_S)
    return meter


def _told(settings: Settings, paths: Sequence[Path]) -> dict[str, Any]:
    plan = settings.plan
    return {
        "command": _command(settings, paths),
        "source": told_uri(settings.source),
        "sink": told_uri(settings.sink),
        "frames": plan.frames,
        "duration_s": plan.duration_s,
        "warm_up": plan.warm_up,
        "engines": list(settings.engines),
        "peers": list(settings.peers),
        "threads": settings.threads,
    }


def _command(settings: Settings, paths: Sequence[Path]) -> str:
    """What measures the same again where the same files lie."""
    plan = settings.plan
    parts = ["python", "benchmarks/latency.py", *(path.name for path in paths)]
    parts += ["--source", told_uri(settings.source), "--sink", told_uri(settings.sink)]
    if plan.duration_s is not None:
        parts += ["--duration", f"{plan.duration_s:g}"]
    else:
        parts += ["--frames", str(plan.frames)]
    parts += ["--warmup", str(plan.warm_up)]
    for engine in settings.engines:
        parts += ["--engine", engine]
    if settings.peers:
        parts += ["--peers", ",".join(settings.peers)]
    if settings.threads is not None:
        parts += ["--threads", str(settings.threads)]
    if settings.roof:
        parts.append("--roof")
    if settings.power:
        parts.append("--power")
    return shlex.join(parts)


def _busy(around: Mapping[str, Any]) -> list[str]:
    load, threads = around["load_average_1m"], around["cpu_threads"]
    if load is None or load <= threads / 2:
        return []
    return [
        f"other programs kept this machine busy (load {load:.1f} on {threads} threads): these "
        "timings are noisy"
    ]


def _failed(lined_up: LineUp, results: Sequence[Result], named: Sequence[Path]) -> bool:
    """Whether a model of ours, or every row of a checkpoint, that was named did not run."""
    ran: dict[Path, list[bool]] = {}
    failed = False
    for model, result in zip(lined_up.models, results, strict=True):
        if model is None or model not in named:
            continue
        refused = isinstance(result, NotRun)
        if isinstance(result, NotRun) and result.role == OURS:
            failed = True
        ran.setdefault(model, []).append(not refused)
    return failed or not all(any(each) for each in ran.values())
