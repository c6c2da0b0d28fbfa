"""How a time grows with what is asked for: fits and what they are worth. Pure arithmetic.

Every estimate has a 95 % interval from rounds that are drawn again with replacement (Efron 1979,
"Bootstrap Methods: Another Look at the Jackknife"). All points of a round are drawn together: a
round is what the machine disturbed as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

POWER, LINE = "power", "line"
FEWEST_POINTS = 3
"""Two laws of two parameters each: through two points both go exactly."""
FAR_OFF = 0.2
"""A point is told when it differs by more from what the other points make expected."""
_FEWEST_TO_LEAVE_ONE_OUT = 4
_RESAMPLES = 2000
_LEAST_SHARE = 1e-3
"""Of a measured time: a straight line that goes below 0 somewhere has a finite error there."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure, and between which it lies in 95 % of the draws."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: Floats) -> Estimate:
        """Of the figure of all rounds, and of those of the rounds drawn again."""
        low, high = np.percentile(draws, (2.5, 97.5))
        return cls(float(value), float(low), float(high))


@dataclass(frozen=True)
class Timed:
    """A point: so much was asked for, and each round's median took so long."""

    amount: float
    """Megapixels, above 0."""
    rounds_ms: Sequence[float]


@dataclass(frozen=True)
class Law:
    """One of the two laws, fitted."""

    first: Estimate
    """POWER: milliseconds at one megapixel. LINE: the fixed cost in milliseconds."""
    second: Estimate
    """POWER: the exponent. LINE: milliseconds for each megapixel."""
    residuals: list[float]
    """Of each point: measured over fitted, less 1."""
    rms: float
    """Root mean square of ln(measured / fitted): how well the law fits."""


@dataclass(frozen=True)
class Step:
    """From one point to the next larger one."""

    start: int
    end: int
    """Both are places in the points as given."""
    exponent: Estimate


@dataclass(frozen=True)
class Growth:
    """How a time grows, in two laws."""

    power: Law
    line: Law
    better: str
    """POWER or LINE: the smaller `rms`."""
    better_share: float
    """In which share of the draws that law is the better one."""
    steps: list[Step]
    left_out: list[Estimate]
    """Of each point: measured over what the better law makes of the other points, less 1; empty
    for fewer than four."""
    far_off: list[int]
    """Places of the points that the others do not foretell, and not by chance: the one that is
    farthest off, then what is still far off without it, and so on."""


def growth(points: Sequence[Timed]) -> Growth:
    """Fit time = a * amount^b and time = c + d * amount.

    The first by least squares on logarithms, the second by least squares on relative residuals
    (weights 1 / time^2): the noise of a timing grows with the time, and else the largest point
    alone would decide on the fixed cost.

    Args:
        points: of at least three amounts that differ, with the same number of rounds each.

    Raises:
        ValueError: fewer.
    """
    amounts = np.array([point.amount for point in points])
    if len(np.unique(amounts)) < FEWEST_POINTS:
        raise ValueError(f"{len(np.unique(amounts))} amounts, {FEWEST_POINTS} are needed")
    times = _times(points)
    drawn = _drawn_again(times)
    mid = np.median(times, axis=1)
    power, line = (_law(kind, amounts, mid, drawn) for kind in (POWER, LINE))
    power_wins = _rms(_at_power(_power(amounts, drawn), amounts), drawn) <= _rms(
        _at_line(_line(amounts, drawn), amounts), drawn
    )
    better = POWER if power.rms <= line.rms else LINE
    share = float(np.mean(power_wins if better == POWER else ~power_wins))
    return Growth(
        power,
        line,
        better,
        share,
        steps=_steps(amounts, mid, drawn),
        left_out=_left_out(amounts, mid, drawn, better),
        far_off=_far_off(amounts, mid, drawn, better),
    )


def serial_share(rounds_ms: Mapping[int, Sequence[float]]) -> Estimate:
    """The share s of the work that more threads do not shorten: 1 / speed-up = s + (1 - s) / n.

    Source: Amdahl 1967, "Validity of the single processor approach to achieving large scale
    computing capabilities"; solved for s as in Karp and Flatt 1990, by least squares over all n.

    Args:
        rounds_ms: by number of threads the median of each round; has 1 and another.

    Raises:
        ValueError: it has not.
    """
    more = [threads for threads in rounds_ms if threads > 1]
    if 1 not in rounds_ms or not more:
        raise ValueError(f"threads {sorted(rounds_ms)}: one thread and more are needed")
    alone = np.array(rounds_ms[1])
    shortened = np.array([np.array(rounds_ms[threads]) / alone for threads in more])
    ideal = 1 / np.array(more, float)

    def solved(inverse: Floats) -> Floats:
        room = 1 - ideal
        found: Floats = ((inverse - ideal[:, None]) * room[:, None]).sum(0) / (room**2).sum()
        return found

    whole = solved(np.median(shortened, axis=1)[:, None])
    return Estimate.of(float(whole[0]), solved(_drawn_again(shortened)))


def amdahl_speed_up(share: float, threads: float) -> float:
    """How many times as fast `threads` are as one, when a `share` of the work stays serial."""
    return 1 / (share + (1 - share) / threads)


# ------------------------------------------------------------------------------------- the laws


def _power(amounts: Floats, times: Floats) -> tuple[Floats, Floats]:
    """(a, b) for times of [points] or [points, draws]."""
    x, y = np.log(amounts), np.log(times)
    centred = x - x.mean()
    b = np.tensordot(centred, y, axes=(0, 0)) / (centred**2).sum()
    return np.exp(y.mean(axis=0) - b * x.mean()), b


def _line(amounts: Floats, times: Floats) -> tuple[Floats, Floats]:
    """(c, d): the normal equations of sum(((c + d * x) / t - 1)^2)."""
    x = amounts.reshape(-1, *[1] * (times.ndim - 1))
    weight = 1 / times**2
    s, sx, sxx = weight.sum(0), (weight * x).sum(0), (weight * x * x).sum(0)
    st, sxt = (1 / times).sum(0), (x / times).sum(0)
    d = (s * sxt - sx * st) / (s * sxx - sx**2)
    return (st - d * sx) / s, d


def _at_power(law: tuple[Floats, Floats], amounts: Floats) -> Floats:
    fitted: Floats = law[0] * np.power.outer(amounts, law[1])
    return fitted


def _at_line(law: tuple[Floats, Floats], amounts: Floats) -> Floats:
    fitted: Floats = law[0] + np.multiply.outer(amounts, law[1])
    return fitted


_LAWS = {POWER: (_power, _at_power), LINE: (_line, _at_line)}


def _law(kind: str, amounts: Floats, times: Floats, drawn: Floats) -> Law:
    fit, at = _LAWS[kind]
    found = fit(amounts, times)
    first, second = (
        Estimate.of(float(value), draws)
        for value, draws in zip(found, fit(amounts, drawn), strict=True)
    )
    fitted = at(found, amounts)
    off = [float(ratio) for ratio in times / np.maximum(fitted, _LEAST_SHARE * times) - 1]
    return Law(first, second, off, float(_rms(fitted, times)))


def _rms(fitted: Floats, times: Floats) -> Floats:
    off = np.log(times / np.maximum(fitted, _LEAST_SHARE * times))
    spread: Floats = np.sqrt(np.mean(off**2, axis=0))
    return spread


def _steps(amounts: Floats, times: Floats, drawn: Floats) -> list[Step]:
    order = np.argsort(amounts, kind="stable").tolist()
    steps = []
    for start, end in pairwise(order):
        if amounts[start] == amounts[end]:
            continue
        width = math.log(amounts[end] / amounts[start])
        exponent = math.log(times[end] / times[start]) / width
        draws = np.log(drawn[end] / drawn[start]) / width
        steps.append(Step(start, end, Estimate.of(exponent, draws)))
    return steps


def _left_out(amounts: Floats, times: Floats, drawn: Floats, better: str) -> list[Estimate]:
    fit, at = _LAWS[better]

    def off(place: int, others: NDArray[np.bool_], measured: Floats) -> Floats:
        foretold = at(fit(amounts[others], measured[others]), amounts[[place]])[0]
        beyond: Floats = measured[place] / np.maximum(foretold, _LEAST_SHARE * measured[place]) - 1
        return beyond

    found = []
    for place in range(len(amounts)):
        others = np.arange(len(amounts)) != place
        if len(np.unique(amounts[others])) < _FEWEST_TO_LEAVE_ONE_OUT - 1:
            return []
        value = float(off(place, others, times))
        found.append(Estimate.of(value, off(place, others, drawn)))
    return found


def _far_off(amounts: Floats, times: Floats, drawn: Floats, better: str) -> list[int]:
    kept, found = list(range(len(amounts))), list[int]()
    while True:
        offs = _left_out(amounts[kept], times[kept], drawn[kept], better)
        sure = {
            place: abs(math.log1p(off.value))
            for place, off in zip(kept, offs, strict=False)  # none where too few are left
            if off.low > FAR_OFF or off.high < -FAR_OFF
        }
        if not sure:
            return sorted(found)
        worst = max(sure, key=lambda place: sure[place])
        found.append(worst)
        kept.remove(worst)


def _times(points: Sequence[Timed]) -> Floats:
    return np.array([list(point.rounds_ms) for point in points], float)


def _drawn_again(rounds: Floats) -> Floats:
    """[points, rounds] to the medians of rounds drawn with replacement, [points, draws]."""
    count = rounds.shape[1]
    chosen = np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))
    medians: Floats = np.median(rounds[:, chosen], axis=2)
    return medians
