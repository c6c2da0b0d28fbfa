"""What was measured, as the JSON object that tables, pictures and pages are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, combinations
from typing import Any

from benchmarks.distributions import FENCE, RESAMPLES, Ratio, to_json
from benchmarks.paths import without_paths
from benchmarks.peers.trtexec import DeviceRow
from benchmarks.result_file import KIND, SCHEMA
from benchmarks.rounds.measure import (
    AGE,
    END_TO_END,
    STAGES,
    Measured,
    MeasuredOnDevice,
    Result,
    Rounds,
)
from benchmarks.rounds.rows import OURS, NotRun, OurRow, Row
from benchmarks.timing import rate_per_s
from runtime.artifact import ArtifactMeta

COST_GOAL = 1.10
EXPLAINED_GOAL = 0.97
MEASURING_GOAL = 0.01
INFER = "infer"

MEANINGS = {
    "row": "ours: a model file through runtime.Translator and runtime.pipeline.Pipeline; a peer: "
    "the same generator run by somebody else's program, in the plain loop that a person writes; "
    "how says how each was set up",
    "latency": "the stages of one frame run one after the other, as for a live camera (ours: "
    "Pipeline in mode latency); fps is what this way reaches",
    "throughput": "capture, translation and sink of different frames run at the same time, every "
    "frame of a file (Pipeline in mode throughput); each frame is on its way for longer; null for "
    "a live source, which sets its own rate, and for peers, whose loop overlaps nothing",
    "inference_alone_ms": "the stage infer again and again on one prepared batch: from the host's "
    "array to the host's array, transfers included, nothing else running",
    "pipeline_over_inference": "wall time of a frame with overlapping stages over wall time of "
    "the inference alone, both of the same round: the median of the rounds, the least, the most",
    "capture, in, infer, out, sink": "read and decode; from the picture to what the network "
    "takes; the network; back to a picture of the frame's size; show or write",
    "age": "from the frame in hand until the sink has it",
    "end_to_end": "capture and age; of a live source the age alone (waiting for the camera is no "
    "latency)",
    "explained": "what the five stages of all frames sum up to, over their end_to_end",
    "device_ms": "by events on the device, in trtexec's words: H2D Latency, GPU Compute Time, D2H "
    "Latency and Enqueue Time of single launches; latency as frames run otherwise, with a CUDA "
    "graph where there is one; null where the engine tells no such times",
    "device_rows": "trtexec on files of ours, after the rounds: the device alone, so none of the "
    "stages; latency is with a CUDA graph and with what its copies and its work overlap",
    "measuring": "what a frame's stamps and book-keeping cost, timed by themselves, over the time "
    "from frame to frame",
    "rounds": "rows have short turns in many rounds, in an order that favours nobody by place or "
    "by predecessor (Williams 1949)",
    "ratios": "in each round the median time of the one row over that of the other; the median "
    "of the rounds, with its interval",
    "p50, p90, p95, p99": "nearest rank, in milliseconds; N stamps are N - 1 intervals",
    "p50_low, p50_high, low, high": f"95 % interval of the median by the bootstrap ({RESAMPLES} "
    "times; whole rounds are drawn again, since frames of one round share what disturbed it)",
    "outliers": f"how many samples lie more than {FENCE} times the range between the quartiles "
    "beyond these (Tukey's fences); they are counted in every other figure, none is left out",
    "histogram": "bins of one width up to the upper fence; one more, wider, holds all beyond it",
}


@dataclass
class Run:
    """All that one call of the benchmark found."""

    created_at: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    results: Sequence[Result]
    measuring_ms: Mapping[str, float]
    """By role: what a frame's stamps and book-keeping cost."""
    warnings: list[str] = field(default_factory=list)
    roofs: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """By the row's name: its share of what the machine could do."""
    energies: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """By the row's name."""
    roof: dict[str, Any] | None = None
    power: dict[str, Any] | None = None


def result_of(run: Run) -> dict[str, Any]:
    """The whole of a run as a JSON object of schema 2; it holds no path of this machine."""
    rows = [
        _not_run(result)
        if isinstance(result, NotRun)
        else {
            **_measured(result, run.measuring_ms[result.row.role]),
            "roof": run.roofs.get(result.row.name),
            "energy": run.energies.get(result.row.name),
        }
        for result in run.results
        if not isinstance(result, MeasuredOnDevice)
    ]
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "created_at": run.created_at,
        "meanings": MEANINGS,
        "settings": run.settings,
        "environment": run.environment,
        "warnings": [*run.warnings, *_doubts(rows)],
        "rows": rows,
        "device_rows": [
            _on_device(result) for result in run.results if isinstance(result, MeasuredOnDevice)
        ],
        "ratios": ratios_of(run.results),
        "roof": run.roof,
        "power": run.power,
    }


def ratios_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Each two rows of ours, and each of ours with each peer of its generator.

    Of two peers there is none: who wants it has the rounds. The slower row by the median of the
    rounds is the one above.
    """
    measured = [result for result in results if isinstance(result, Measured)]
    found = []
    for one, other in combinations(measured, 2):
        roles = (one.row.role, other.row.role)
        if roles != (OURS, OURS) and (
            OURS not in roles or one.row.generator != other.row.generator
        ):
            continue
        for of in (INFER, END_TO_END):
            slow, fast = one, other
            ratio = Ratio.of(slow.stages_ms[of], fast.stages_ms[of])
            if ratio.value < 1:
                slow, fast = other, one
                ratio = Ratio.of(slow.stages_ms[of], fast.stages_ms[of])
            found.append(
                {
                    "slow": slow.row.name,
                    "fast": fast.row.name,
                    "of": of,
                    "value": round(ratio.value, 5),
                    "low": round(ratio.low, 5),
                    "high": round(ratio.high, 5),
                    "rounds": [round(value, 5) for value in ratio.rounds],
                }
            )
    return found


def _not_run(row: NotRun) -> dict[str, Any]:
    why = row.why
    if row.file is not None and row.file.parent.name:
        why = why.replace(f"{row.file.parent}/", "")
    return {
        "name": row.name,
        "role": row.role,
        "peer": row.peer,
        "generator": row.generator,
        "file": row.file.name if row.file else None,
        "status": "not run",
        "why": why,
    }


def _named(row: Row | DeviceRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "role": row.role,
        "peer": row.peer,
        "generator": row.generator,
        "engine": row.engine,
        "precision": row.precision,
        "how": row.how,
        "file": row.file.name if row.file else None,
        "frame_size_px": list(row.frame_size_px),
        "status": "measured",
        "size_bytes": row.file.stat().st_size if row.file and row.file.is_file() else None,
    }


def _on_device(result: MeasuredOnDevice) -> dict[str, Any]:
    return {
        **_named(result.row),
        "fps": result.fps,
        "device_ms": {name: to_json(rounds) for name, rounds in result.device_ms.items()},
    }


def _measured(result: Measured, measuring_ms: float) -> dict[str, Any]:
    row = result.row
    throughput = None
    if result.overlapped_ms:
        throughput = {
            "fps": rate_per_s(_all(result.overlapped_ms)),
            "frame_interval_ms": to_json(result.overlapped_ms),
        }
    cost = None
    if result.cost_ratios:
        cost = {
            "value": result.cost_ratio,
            "least": min(result.cost_ratios),
            "most": max(result.cost_ratios),
            "goal": COST_GOAL,
            "rounds": [round(ratio, 5) for ratio in result.cost_ratios],
        }
    between = to_json(result.one_by_one_ms)
    return {
        **_named(row),
        "load_ms": round(row.load_ms, 3),
        "latency": {
            "fps": rate_per_s(_all(result.one_by_one_ms)),
            "stages_ms": {
                stage: to_json(result.stages_ms[stage]) for stage in (*STAGES, AGE, END_TO_END)
            },
            "explained": round(result.explained, 5),
        },
        "throughput": throughput,
        "inference_alone_ms": to_json(result.alone_ms),
        "pipeline_over_inference": cost,
        "device_ms": {name: to_json(rounds) for name, rounds in result.device_ms.items()} or None,
        "measuring": {
            "per_frame_ms": round(measuring_ms, 5),
            "share": round(measuring_ms / between["p50"], 6),
            "goal": MEASURING_GOAL,
        },
        "meta": _told_meta(row.meta) if isinstance(row, OurRow) else None,
        "samples_ms": {
            "latency": {stage: _rounded(rounds) for stage, rounds in result.stages_ms.items()},
            "throughput": _rounded(result.overlapped_ms),
            "inference_alone": _rounded(result.alone_ms),
            "device": {name: _rounded(rounds) for name, rounds in result.device_ms.items()},
        },
    }


def _told_meta(meta: ArtifactMeta) -> dict[str, Any]:
    told = asdict(meta)
    return told | {"training_data": without_paths(meta.training_data)}


def _doubts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader should know of the figures of each row."""
    told = []
    for row in rows:
        if row["status"] != "measured":
            continue
        explained, share = row["latency"]["explained"], row["measuring"]["share"]
        if explained < EXPLAINED_GOAL:
            told.append(
                f"{row['name']}: its stages sum up to {explained:.1%} of a frame's time, less "
                f"than {EXPLAINED_GOAL:.0%}: the rest was waiting between them"
            )
        if share > MEASURING_GOAL:
            told.append(
                f"{row['name']}: measuring takes {share:.1%} of a frame's time, more than "
                f"{MEASURING_GOAL:.0%}"
            )
    return told


def _all(rounds: Rounds) -> list[float]:
    return list(chain.from_iterable(rounds))


def _rounded(rounds: Rounds) -> list[float]:
    return [round(sample, 4) for sample in _all(rounds)]
