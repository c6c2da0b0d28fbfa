"""Which night goes with which day, and which whole days are held out."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

import numpy as np

from trainer.timelapse_register import Luma

Match = tuple[int, int]
"""(number of the day picture, number of the night picture)."""
_SAME_LEVELS = 3.0
_THUMB = 16
_REACH = 500
"""Nights before and after a day picture that it is compared with at most."""


def find_repeats(lumas: Sequence[Luma]) -> dict[int, int]:
    """Pictures that repeat an earlier one: number -> number of the one that stays.

    The same means that 999 of 1000 pixels differ by at most 3 grey levels: a frozen camera, a
    file saved twice, but no moved car.
    """
    blocks: dict[int, Luma] = {}
    kept: list[int] = []
    thumbs = np.zeros((len(lumas), _THUMB * _THUMB), np.float32)
    repeats: dict[int, int] = {}
    for number, luma in enumerate(lumas):
        thumbs[number] = _thumb(luma)
        near: list[int] = []
        if kept:
            apart = np.abs(thumbs[kept] - thumbs[number]).max(axis=1)
            near = [kept[int(i)] for i in np.flatnonzero(apart <= _SAME_LEVELS)]
        for other in near:
            levels = np.abs(blocks[other].astype(np.int16) - luma.astype(np.int16))
            if np.quantile(levels, 0.999) <= _SAME_LEVELS:
                repeats[number] = other
                break
        else:
            kept.append(number)
            blocks[number] = luma
    return repeats


def _thumb(luma: Luma) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    height, width = luma.shape
    rows = np.linspace(0, height, _THUMB + 1).astype(int)[:-1]
    columns = np.linspace(0, width, _THUMB + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(luma.astype(np.float32), rows, 0), columns, 1)
    sizes = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    return np.asarray((sums / sizes).ravel(), np.float32)


def match_nearest(
    days: dict[int, float],
    nights: dict[int, float],
    max_gap_s: float,
    per_day: int,
    per_night: int,
) -> list[Match]:
    """Pair day and night pictures, the nearest in time first, in the order of the days.

    Every picture gets its first partner before any gets a second, so that the nights beside dusk
    and dawn are not used up twice while those around midnight wait.

    days, nights: seconds by number. per_day, per_night: how often a picture is used at most.
    """
    candidates = _within(days, nights, max_gap_s)
    used_day = dict.fromkeys(days, 0)
    used_night = dict.fromkeys(nights, 0)
    matches: set[Match] = set()
    for turn in range(1, max(per_day, per_night) + 1):
        day_limit, night_limit = min(turn, per_day), min(turn, per_night)
        for day, night in candidates:
            room = used_day[day] < day_limit and used_night[night] < night_limit
            if room and (day, night) not in matches:
                matches.add((day, night))
                used_day[day] += 1
                used_night[night] += 1
    return sorted(matches, key=lambda match: (days[match[0]], nights[match[1]], match))


def _within(days: dict[int, float], nights: dict[int, float], max_gap_s: float) -> list[Match]:
    """Day and night pictures at most that far apart, the nearest first."""
    order = sorted(nights, key=lambda n: (nights[n], n))
    times = [nights[n] for n in order]
    found: list[tuple[float, int, int]] = []
    for day, at in days.items():
        middle = bisect.bisect_left(times, at)
        first = max(bisect.bisect_left(times, at - max_gap_s), middle - _REACH)
        last = min(bisect.bisect_right(times, at + max_gap_s), middle + _REACH)
        found += [(abs(times[i] - at), day, order[i]) for i in range(first, last)]
    found.sort()
    return [(day, night) for _, day, night in found]


def split_by_date(
    days: dict[int, float],
    nights: dict[int, float],
    match: Callable[[dict[int, float], dict[int, float]], list[Match]],
    share: float,
) -> tuple[list[Match], list[Match], str]:
    """(train, val, how it was split): the last days are held out, no picture is in both.

    The cut is made at a dawn, between the last night picture before and the first day picture
    after it, and both sides are matched by themselves. Where no dawn leaves pairs on both sides,
    the last day pictures are held out with the nights nearest to them.

    match: pairs the given day and night pictures. share: of the day pictures, 0 for no val.
    """
    every = match(days, nights)
    if share <= 0 or len(every) < 2:
        return every, [], "all pairs are in train/"
    moments = sorted([(at, 0) for at in days.values()] + [(at, 1) for at in nights.values()])
    dawns = [
        (moments[i][0] + moments[i + 1][0]) / 2
        for i in range(len(moments) - 1)
        if moments[i][1] == 1 and moments[i + 1][1] == 0
    ]
    held = {dawn: sum(at > dawn for at in days.values()) / len(days) for dawn in dawns}
    for dawn in sorted(dawns, key=lambda dawn: abs(held[dawn] - share))[:20]:
        if not 0 < held[dawn] <= max(0.5, share):
            continue
        early, late = (
            match(
                {n: at for n, at in days.items() if (at > dawn) == after},
                {n: at for n, at in nights.items() if (at > dawn) == after},
            )
            for after in (False, True)
        )
        if early and late:
            return early, late, "the last days are held out, from a dawn on"
    return _split_last(days, nights, match, share)


def _split_last(
    days: dict[int, float],
    nights: dict[int, float],
    match: Callable[[dict[int, float], dict[int, float]], list[Match]],
    share: float,
) -> tuple[list[Match], list[Match], str]:
    """Hold out the last day pictures, and give them their nights before train/ chooses."""
    ordered = sorted(days, key=lambda n: (days[n], n))
    last = set(ordered[-max(1, round(share * len(days))) :])
    held_out = match({n: days[n] for n in last}, nights)
    taken = {night for _, night in held_out}
    train = match(
        {n: at for n, at in days.items() if n not in last},
        {n: at for n, at in nights.items() if n not in taken},
    )
    if not train or not held_out:
        return match(days, nights), [], "all pairs are in train/: too few to hold any out"
    note = "the last day pictures are held out; no dawn leaves pairs on both of its sides"
    return train, held_out, note
