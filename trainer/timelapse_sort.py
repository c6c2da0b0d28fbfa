"""From a camera's pictures to its days and its nights: what is kept, what is dropped, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from trainer.errors import DataError
from trainer.timelapse_light import (
    MIN_GAP_STOPS,
    brightness_of,
    compare_halves,
    emptiness_of,
    is_dusk,
    lamps_limit,
    split_in_two,
)
from trainer.timelapse_match import find_repeats
from trainer.timelapse_read import Shot
from trainer.timelapse_register import Motion, after, aligned
from trainer.timelapse_views import ROUNDS, View, find_views, gather, refine

Follow = Callable[[str, int], Callable[[], object]]
"""Told what begins and how many steps it has; gives what is called after each step."""

DAMAGED, ANOTHER_SIZE, REPEAT = "damaged", "another size", "repeat"
BLURRED, ANOTHER_VIEW, DUSK = "blurred", "another view", "dusk"
UNMATCHED = "no partner left"
_MIN_BLUR = 0.5
_BLUR_DEVIATIONS = 5.0
_MEDIAN_OF = 200


@dataclass(frozen=True)
class Placed:
    """A kept picture: where a pixel of the common reference lies in its small copy.

    score: correlation of its structure with the average of its half of the day.
    """

    shot: Shot
    motion: Motion
    score: float


@dataclass
class Sorted:
    """Days and nights of one view, and (file, reason, detail) of what was dropped."""

    days: list[Placed]
    nights: list[Placed]
    link_score: float
    dropped: list[tuple[str, str, str]] = field(default_factory=list)


def sort_shots(shots: Sequence[Shot], max_shift: float, follow: Follow) -> Sorted:
    """Sort the pictures of one camera into days and nights of its usual view.

    max_shift: how far the camera may have moved, as a part of the picture's width.

    Raises:
        DataError: fewer than 2 usable pictures, only days or only nights, or no view that is
            shown by both.
    """
    dropped: list[tuple[str, str, str]] = []
    usable = _without_repeats(_of_one_size(_not_empty(shots, dropped), dropped), dropped)
    if len(usable) < 2:
        raise DataError(
            f"{len(usable)} usable of {len(shots)} pictures{told(dropped)}",
            "pictures of one fixed camera by day and by night",
            "name the folder that holds them",
        )
    max_shift_px = max_shift * usable[0].luma.shape[1]
    lumas = {n: shot.luma for n, shot in enumerate(usable)}
    views, _ = find_views(lumas, max_shift_px, follow("comparing views", ROUNDS * len(usable)))
    place = gather(views, max_shift_px)
    for n, shot in enumerate(usable):
        if n not in place:
            dropped.append((shot.name, ANOTHER_VIEW, _elsewhere(n, views)))
    # Only one place's pictures are sorted by brightness: others would shift the threshold.
    bright = {n: brightness_of(lumas[n]) for n in place}
    threshold = split_in_two(list(bright.values())) if len(place) > 1 else 0.0
    tick = follow("registering", len(place))
    halves: list[View] = []
    for is_day in (True, False):
        numbers = [n for n in place if (bright[n] > threshold) == is_day]
        numbers = _sharp(numbers, usable, dropped)
        if not numbers:
            raise _one_half_only(f"{len(place)} pictures of one view are equally bright")
        half, strange = refine(
            {n: lumas[n] for n in numbers}, {n: place[n] for n in numbers}, max_shift_px, tick
        )
        dropped += [(usable[n].name, ANOTHER_VIEW, "does not fit its half") for n in strange]
        halves.append(half)
    day, night = halves
    link = day.reference.fit(night.reference.field, max_shift_px)
    if not link.same_view:
        raise _one_half_only(
            f"{len(day.fits)} bright and {len(night.fits)} dark pictures do not show the same "
            f"view (correlation {link.score:.2f})"
        )
    placed = [
        {n: Placed(usable[n], fit.motion, fit.score) for n, fit in day.fits.items()},
        {
            n: Placed(usable[n], after(link.motion, fit.motion), fit.score)
            for n, fit in night.fits.items()
        },
    ]
    result = Sorted([], [], link.score, dropped)
    _drop_dusk(placed, result)
    return result


def _elsewhere(number: int, views: Sequence[View]) -> str:
    shared = [len(view.fits) for view in views if number in view.fits]
    return f"{shared[0]} pictures show it" if shared else "like no other picture"


def _one_half_only(received: str) -> DataError:
    return DataError(
        received,
        f"days and nights of one fixed camera, at least {MIN_GAP_STOPS} stops apart and lit "
        "from elsewhere",
        "add the missing half, or name another folder",
    )


def told(dropped: Sequence[tuple[str, str, str]]) -> str:
    """Counts by reason in brackets, or nothing."""
    reasons = [reason for _, reason, _ in dropped]
    counts = [f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons)]
    return f" ({', '.join(counts)})" if counts else ""


def _not_empty(shots: Sequence[Shot], dropped: list[tuple[str, str, str]]) -> list[Shot]:
    kept = []
    for shot in shots:
        why = emptiness_of(shot.luma)
        if why is None:
            kept.append(shot)
        else:
            dropped.append((shot.name, why, f"mean grey level {shot.luma.mean():.0f}"))
    return kept


def _of_one_size(shots: list[Shot], dropped: list[tuple[str, str, str]]) -> list[Shot]:
    sizes = [shot.size for shot in shots]
    usual = max(dict.fromkeys(sizes), key=sizes.count, default=(0, 0))
    for shot in shots:
        if shot.size != usual:
            detail = f"{shot.size[1]}x{shot.size[0]}, most are {usual[1]}x{usual[0]}"
            dropped.append((shot.name, ANOTHER_SIZE, detail))
    return [shot for shot in shots if shot.size == usual]


def _without_repeats(shots: list[Shot], dropped: list[tuple[str, str, str]]) -> list[Shot]:
    ordered = sorted(shots, key=lambda shot: (shot.taken_s, shot.name))
    repeats = find_repeats([shot.luma for shot in ordered])
    for number, earlier in repeats.items():
        dropped.append((ordered[number].name, REPEAT, f"of {ordered[earlier].name}"))
    return [shot for number, shot in enumerate(ordered) if number not in repeats]


def _sharp(
    numbers: list[int], shots: list[Shot], dropped: list[tuple[str, str, str]]
) -> list[int]:
    """Without those that are much softer than this half of the day usually is."""
    values = np.array([shots[n].sharpness for n in numbers])
    usual = float(np.median(values)) if len(values) else 0.0
    deviation = 1.4826 * float(np.median(np.abs(values - usual))) if len(values) else 0.0
    limit = usual - max(_MIN_BLUR, _BLUR_DEVIATIONS * deviation)
    kept = []
    for number, value in zip(numbers, values, strict=True):
        if value >= limit:
            kept.append(number)
        else:
            detail = f"sharpness {value:.2f}, usual {usual:.2f}"
            dropped.append((shots[number].name, BLURRED, detail))
    return kept


def _drop_dusk(placed: list[dict[int, Placed]], result: Sorted) -> None:
    """Fill the days and nights of `result` with what is clearly one or the other."""
    lumas = [{n: aligned(one.shot.luma, one.motion) for n, one in half.items()} for half in placed]
    halves = compare_halves(*([*_spread(list(half.values()))] for half in lumas))
    if not halves.differ:
        raise _one_half_only(
            f"only days or only nights: {len(lumas[0])} pictures are "
            f"{halves.day_stops - halves.night_stops:.1f} stops above the {len(lumas[1])} others, "
            f"and light falls alike in both (correlation {halves.likeness:.2f})"
        )
    for by_day, half, small, kept in zip(
        (True, False), placed, lumas, (result.days, result.nights), strict=True
    ):
        lamps = {n: halves.lamps(luma) for n, luma in small.items()}
        limit = lamps_limit(list(lamps.values()), by_day)
        for number, one in half.items():
            place = halves.place(small[number])
            if is_dusk(place, lamps[number], limit, by_day):
                detail = f"{place:.0%} of the way to day, {lamps[number]:.0%} of night's lamps"
                result.dropped.append((one.shot.name, DUSK, detail))
            else:
                kept.append(one)


def _spread(
    lumas: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]],
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """At most 200 of them, evenly: a median over more gains nothing."""
    picks = np.linspace(0, len(lumas) - 1, min(len(lumas), _MEDIAN_OF)).astype(int)
    return [lumas[int(pick)] for pick in picks]
