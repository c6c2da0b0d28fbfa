"""What `benchmarks/scaling.py` found, as the JSON object of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.distributions import Ratio, to_json
from benchmarks.growths.fits import FEWEST_POINTS, Growth, Law, Timed, growth, serial_share
from benchmarks.growths.models import Family, told_size
from benchmarks.growths.points import Outcome, Point, Skipped, Taken
from benchmarks.timing import rate_per_s

SCHEMA = 2
KIND = "scaling"
EXPONENT_GOAL = 1.05

MEANINGS = {
    "frame_ms": "one frame's way through runtime.Translator: brought to the network, inferred, "
    "brought back; from the uint8 array in hand to the uint8 array in hand. Of a batch: of all "
    "its frames. Drawing the frame and showing it are not in it",
    "infer_ms": "the part of it that the engine takes",
    "round_medians_ms": "the median of each round; all fits and ratios are made of these",
    "power": "time = ms_at_one_megapixel * megapixels ^ exponent, by least squares on the "
    "logarithms of the medians",
    "line": "time = fixed_ms + ms_per_megapixel * megapixels, by least squares on relative "
    "residuals; a fixed cost below 0 means that time grows faster than pixels",
    "low, high": "95 % of the fits of rounds that were drawn again with replacement (the "
    "bootstrap): how much the timings vary, not whether the law is the right one, which rms and "
    "the residuals tell",
    "rms": "root mean square of ln(measured / fitted)",
    "better": "the law with the smaller rms; better_share: in which share of the draws it is the "
    "better one",
    "residuals": "measured over fitted, less 1",
    "left_out": "measured over what the better law makes of all other points, less 1; where its "
    "whole interval is beyond 0.2, the point is called far off: activations that no longer fit "
    "into a cache are one cause, another kernel for this shape is another",
    "steps": "the exponent from one size to the next alone",
    "goal": f"an exponent of at most {EXPONENT_GOAL} for pixels; certain: the whole interval is "
    "on one side",
    "batch": "fps: frames of one batch over the median of its time; relative: to batch 1, the "
    "median of the rounds' ratios",
    "cameras": "so many live sources through one engine in mode latency, as p2p-live --source A "
    "--source B has them: the newest frame of each; fps: frames that arrived in a second, the "
    "median of the rounds; fps_sum: of all cameras together; age_ms: of a frame when it arrives",
    "newest_age_ms": "how old the newest frame of the camera is that one has in hand, at any "
    "moment: the mean over time; just before the next one arrives it is oldest",
    "threads": "speed_up: against one thread, the median of the rounds' ratios; serial_share: "
    "Amdahl's s in 1 / speed-up = s + (1 - s) / n, by least squares over all n (Amdahl 1967; Karp "
    "and Flatt 1990): what more threads do not shorten; below 0: more than n times as fast",
    "peak_resident_bytes": "the most that the point's own process had in memory on the host, "
    "with Python and the engine's library, which before_bytes tells; null where the system does "
    "not tell",
    "percentiles": "nearest rank, in milliseconds; outliers: beyond 1.5 times the range between "
    "the quartiles",
}


@dataclass(frozen=True)
class Questions:
    """The points of one family, by what they are to tell; one point may be in several."""

    family: Family
    pixels: Sequence[Point]
    batch: Sequence[Point]
    cameras: Sequence[Point]
    threads: Sequence[Point]


def series_to_json(asked: Questions, outcomes: Mapping[Point, Outcome]) -> dict[str, Any]:
    """All that was found of one family."""
    family = asked.family
    ran = [taken for point in _all(asked) if isinstance(taken := outcomes[point], Taken)]
    return {
        "name": family.name,
        "generator": family.generator,
        "precision": family.precision,
        "engine": ran[0].engine if ran else None,
        "export": {
            "way": family.way,
            "commands": list(dict.fromkeys(family.commands)),
            "size_multiple": family.size_multiple,
        },
        "pixels": _pixels(asked.pixels, outcomes),
        "batch": _batch(asked.batch, outcomes),
        "cameras": _cameras(asked.cameras, outcomes),
        "threads": _threads(asked.threads, outcomes),
    }


def skipped(asked: Questions, outcomes: Mapping[Point, Outcome]) -> list[str]:
    """A line for each point without figures."""
    lines = []
    for point in dict.fromkeys(_all(asked)):
        outcome = outcomes[point]
        if isinstance(outcome, Skipped):
            lines.append(f"not run: {asked.family.name}, {_told_point(point)}: {outcome.why}")
    return lines


def warnings_of(series: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of one family's figures."""
    lines = []
    pixels = series["pixels"]
    measured = [point for point in pixels["points"] if point["status"] == "measured"]
    fitted = pixels["fit"]
    if fitted is None:
        lines.append(f"{series['name']}: {pixels['why']}")
        return lines
    for point, off in zip(measured, fitted["left_out"], strict=False):
        if point["size"] in fitted["far_off"]:
            more = "more" if off["value"] > 0 else "less"
            lines.append(
                f"{series['name']}: {point['size']} takes {abs(off['value']):.0%} {more} than the "
                "other sizes make expected"
            )
    return lines


def _all(asked: Questions) -> list[Point]:
    return [*asked.pixels, *asked.batch, *asked.cameras, *asked.threads]


def _told_point(point: Point) -> str:
    parts = [told_size(point.size_px)]
    if point.batch > 1:
        parts.append(f"batch {point.batch}")
    if point.cameras:
        parts.append(f"{point.cameras} cameras")
    if point.threads:
        parts.append(f"{point.threads} threads")
    return ", ".join(parts)


def _pixels(points: Sequence[Point], outcomes: Mapping[Point, Outcome]) -> dict[str, Any]:
    told = [_timed(point, outcomes[point]) for point in points]
    measured = [point for point in told if point["status"] == "measured"]
    if len(measured) < FEWEST_POINTS:
        why = f"{len(measured)} sizes were measured, and a fit takes {FEWEST_POINTS}"
        return {"points": told, "fit": None, "why": why}
    found = growth([Timed(one["megapixels"], one["round_medians_ms"]) for one in measured])
    return {"points": told, "fit": _fit_to_json(found, [one["size"] for one in measured])}


def _fit_to_json(found: Growth, sizes: Sequence[str]) -> dict[str, Any]:
    exponent = found.power.second
    return {
        "power": {
            "ms_at_one_megapixel": asdict(found.power.first),
            "exponent": asdict(exponent),
            **_fitted(found.power),
        },
        "line": {
            "fixed_ms": asdict(found.line.first),
            "ms_per_megapixel": asdict(found.line.second),
            **_fitted(found.line),
        },
        "better": found.better,
        "better_share": found.better_share,
        "steps": [
            {
                "from": sizes[step.start],
                "to": sizes[step.end],
                "exponent": asdict(step.exponent),
            }
            for step in found.steps
        ],
        "left_out": [asdict(off) for off in found.left_out],
        "far_off": [sizes[place] for place in found.far_off],
        "goal": {
            "exponent": EXPONENT_GOAL,
            "reached": exponent.value <= EXPONENT_GOAL,
            "certain": not exponent.low <= EXPONENT_GOAL < exponent.high,
        },
    }


def _fitted(law: Law) -> dict[str, Any]:
    return {"rms": law.rms, "residuals": law.residuals}


def _batch(points: Sequence[Point], outcomes: Mapping[Point, Outcome]) -> dict[str, Any] | None:
    if not points:
        return None
    told = [_timed(point, outcomes[point]) for point in points]
    alone = _taken(next((point for point in points if point.batch == 1), None), outcomes)
    for point, one in zip(points, told, strict=True):
        taken = _taken(point, outcomes)
        if taken is None:
            continue
        one["fps"] = 1000 * point.batch / median(one["round_medians_ms"])
        if alone is not None:
            each_ms = [[ms / point.batch for ms in part] for part in taken.taken_ms]
            one["relative"] = asdict(Ratio.of(alone.taken_ms, each_ms))
    return {"points": told}


def _threads(points: Sequence[Point], outcomes: Mapping[Point, Outcome]) -> dict[str, Any] | None:
    if not points:
        return None
    told = [_timed(point, outcomes[point]) for point in points]
    by_threads = {
        point.threads or 1: taken
        for point in points
        if (taken := _taken(point, outcomes)) is not None
    }
    share = None
    if 1 in by_threads:
        for point, one in zip(points, told, strict=True):
            if one["status"] == "measured":
                taken = by_threads[point.threads or 1]
                one["speed_up"] = asdict(Ratio.of(by_threads[1].taken_ms, taken.taken_ms))
        if len(by_threads) > 1:
            medians = {n: _medians(taken.taken_ms) for n, taken in by_threads.items()}
            share = asdict(serial_share(medians))
    return {"points": told, "serial_share": share}


def _cameras(points: Sequence[Point], outcomes: Mapping[Point, Outcome]) -> dict[str, Any] | None:
    if not points:
        return None
    told = []
    for point in points:
        one = _described(point, outcomes[point])
        taken = _taken(point, outcomes)
        if taken is not None:
            names = list(taken.live[0]["stamps_ns"])
            one["cameras"] = point.cameras
            one["frames_per_inference"] = taken.frames_per_inference
            one["dropped"] = sum(part["dropped"] for part in taken.live)
            one["by_camera"] = {name: _camera(taken, name) for name in names}
            rates = [sum(_rate(part, name) for name in part["stamps_ns"]) for part in taken.live]
            one["fps_sum"] = median(rates)
            one["fps_sum_rounds"] = rates
        told.append(one)
    return {"points": told}


def _camera(taken: Taken, name: str) -> dict[str, Any]:
    ages_ms = [
        [(arrived - captured) / 1e6 for captured, arrived in part["stamps_ns"][name]]
        for part in taken.live
    ]
    newest_ms = [
        age for part in taken.live if (age := newest_age_ms(part["stamps_ns"][name])) is not None
    ]
    return {
        "fps": median(_rate(part, name) for part in taken.live),
        "age_ms": to_json(ages_ms) if any(ages_ms) else None,
        "newest_age_ms": median(newest_ms) if newest_ms else None,
    }


def newest_age_ms(stamps_ns: Sequence[Sequence[int]]) -> float | None:
    """The age of the newest frame in hand, the mean over the time between first and last arrival.

    It grows with the clock from one arrival to the next.

    Args:
        stamps_ns: of each frame when it was captured and when it arrived, in order.

    Returns:
        None for fewer than two frames.
    """
    pairs = list(pairwise(stamps_ns))
    if not pairs:
        return None
    whole_ns = stamps_ns[-1][1] - stamps_ns[0][1]
    area = sum(
        (later - arrived) * ((arrived - captured) + (later - captured)) / 2
        for (captured, arrived), (_, later) in pairs
    )
    return area / whole_ns / 1e6 if whole_ns else None


def _rate(part: Mapping[str, Any], name: str) -> float:
    """Frames a second of one camera in one round; N arrivals are N - 1 intervals, and one or none
    is at most one frame in all of it."""
    arrived = [stamps[1] for stamps in part["stamps_ns"][name]]
    intervals_ms = [(later - before) / 1e6 for before, later in pairwise(arrived)]
    whole_s = (part["until_ns"] - part["from_ns"]) / 1e9
    return rate_per_s(intervals_ms) or len(arrived) / whole_s


def _timed(point: Point, outcome: Outcome) -> dict[str, Any]:
    told = _described(point, outcome)
    if isinstance(outcome, Taken):
        told |= {
            "frame_ms": to_json(outcome.taken_ms),
            "infer_ms": to_json(outcome.infer_ms),
            "round_medians_ms": _medians(outcome.taken_ms),
            "samples_ms": [[round(ms, 4) for ms in part] for part in outcome.taken_ms],
        }
    return told


def _described(point: Point, outcome: Outcome) -> dict[str, Any]:
    height, width = point.size_px
    told: dict[str, Any] = {
        "size": told_size(point.size_px),
        "frame_size_px": [height, width],
        "megapixels": height * width / 1e6,
        "batch": point.batch,
        "threads": point.threads,
    }
    if isinstance(outcome, Skipped):
        return {**told, "status": "not run", "why": outcome.why}
    return {
        **told,
        "status": "measured",
        "load_ms": outcome.load_ms,
        "before_bytes": outcome.before_bytes,
        "peak_resident_bytes": outcome.peak_bytes,
        "process_starts": outcome.starts,
    }


def _taken(point: Point | None, outcomes: Mapping[Point, Outcome]) -> Taken | None:
    outcome = outcomes[point] if point is not None else None
    return outcome if isinstance(outcome, Taken) else None


def _medians(rounds_ms: Sequence[Sequence[float]]) -> list[float]:
    return [median(part) for part in rounds_ms]
