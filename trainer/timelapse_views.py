"""Which pictures show the same view, and which view by night is which view by day.

Pictures of one half of the day are alike enough to be registered to their own average. Where a
lone day and a lone dark night are too unlike, the two averages still meet: dozens of pictures
weigh in there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainer.timelapse_register import (
    MIN_PEAK,
    MIN_SCORE,
    Field,
    Fit,
    Luma,
    Reference,
    after,
    field_of,
    inverse,
    peak_of,
    spectrum_of,
    turn_deg,
    warped,
)

Tick = Callable[[], object]
_SAMPLE = 40
_MAX_VIEWS = 8
ROUNDS = 2


@dataclass(frozen=True)
class View:
    """Pictures of one view: their average, and each one's fit to it by its number."""

    reference: Reference
    fits: dict[int, Fit]


def find_views(
    lumas: dict[int, Luma], max_shift_px: float, tick: Tick = lambda: None
) -> tuple[list[View], dict[int, Fit]]:
    """Group pictures by view, the largest group first.

    lumas: by number, all of one size. max_shift_px: how far one view's pictures may lie apart.
    tick: called whenever another picture was compared.

    Returns the views (at most 8) and, for each picture in none, its fit to the largest.
    """
    left = dict(lumas)
    views: list[View] = []
    lonely: dict[int, Fit] = {}
    while left and len(views) < _MAX_VIEWS:
        view, every = _largest(left, max_shift_px, tick)
        lonely = {number: lonely.get(number, every[number]) for number in left}
        views.append(view)
        for number in view.fits:
            del left[number]
    views.sort(key=lambda view: -len(view.fits))
    return views, {number: lonely[number] for number in left}


def _largest(
    lumas: dict[int, Luma], max_shift_px: float, tick: Tick
) -> tuple[View, dict[int, Fit]]:
    """The view that most of these pictures show, and every picture's fit to it."""
    middle, group = _seed(lumas, max_shift_px)
    reference = Reference(field_of(lumas[middle]))
    # Registered before they are averaged: the edges of shaken pictures would wash out.
    fits = {n: reference.fit(field_of(lumas[n]), max_shift_px, MIN_SCORE) for n in group}
    every: dict[int, Fit] = {}
    for _ in range(ROUNDS):
        members = {n: fit for n, fit in fits.items() if fit.same_view or n == middle}
        reference = Reference(_average(lumas, members))
        enough = 0.6 * float(np.median([fit.score for fit in members.values()]))
        every = {}
        for number, luma in lumas.items():
            every[number] = reference.fit(field_of(luma), max_shift_px, enough)
            tick()
        fits = {n: fit for n, fit in every.items() if fit.same_view or n == middle}
        every = _centred(every, fits)
        fits = {n: every[n] for n in fits}
    return View(Reference(_average(lumas, fits)), fits), every


def _centred(every: dict[int, Fit], fits: dict[int, Fit]) -> dict[int, Fit]:
    """The reference moved to where most of `fits` stand: they need no motion then."""
    usual = np.median([fit.motion for fit in fits.values()], axis=0)
    angle = math.radians(turn_deg(usual))
    usual[:, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    back = inverse(usual)
    return {n: replace(fit, motion=after(back, fit.motion)) for n, fit in every.items()}


def _seed(lumas: dict[int, Luma], max_shift_px: float) -> tuple[int, list[int]]:
    """Of a sample, the picture that most others correlate with, and these (it among them)."""
    numbers = list(lumas)
    picks = np.linspace(0, len(numbers) - 1, min(len(numbers), _SAMPLE)).astype(int)
    sample = [numbers[int(pick)] for pick in picks]
    spectra = {n: spectrum_of(field_of(lumas[n])) for n in sample}
    alike: dict[int, list[int]] = {n: [n] for n in sample}
    for index, first in enumerate(sample):
        for second in sample[index + 1 :]:
            _, _, score, deviation = peak_of(spectra[first], spectra[second], max_shift_px)
            if score >= MIN_SCORE and score / deviation >= MIN_PEAK:
                alike[first].append(second)
                alike[second].append(first)
    middle = max(sample, key=lambda n: len(alike[n]))
    return middle, alike[middle]


def _average(lumas: dict[int, Luma], fits: dict[int, Fit]) -> Field:
    """Of the pictures with a fit, each as the reference sees it."""
    total = np.zeros(next(iter(lumas.values())).shape, np.complex64)
    for number, fit in fits.items():
        total += warped(field_of(lumas[number]), fit.motion)
    return np.asarray(total / len(fits), dtype=np.complex64)


def gather(views: Sequence[View], max_shift_px: float) -> dict[int, Fit]:
    """The pictures of one place: the view and all others that it links, for the most pictures.

    Days and nights that are too unlike to meet one by one are different views of `find_views`;
    their averages meet here. Returns each picture's fit to that one view's reference.
    """
    best: dict[int, Fit] = {}
    for root in views:
        place = dict(root.fits)
        for other in views:
            if other is not root:
                link = root.reference.fit(other.reference.field, max_shift_px)
                if link.same_view:
                    for number, fit in other.fits.items():
                        place[number] = replace(fit, motion=after(link.motion, fit.motion))
        if len(place) > len(best):
            best = place
    return best


def refine(
    lumas: dict[int, Luma], fits: dict[int, Fit], max_shift_px: float, tick: Tick
) -> tuple[View, list[int]]:
    """One half of the day's pictures of a place, each fitted to the average of that half alone.

    fits: to any common reference, of all `lumas`. Returns the view and who does not fit in.
    """
    reference = Reference(_average(lumas, fits))
    enough = 0.6 * float(np.median([fit.score for fit in fits.values()]))
    every: dict[int, Fit] = {}
    for number, luma in lumas.items():
        every[number] = reference.fit(field_of(luma), max_shift_px, enough)
        tick()
    kept = {n: fit for n, fit in every.items() if fit.same_view} or every
    every = _centred(every, kept)
    kept = {n: every[n] for n in kept}
    return View(Reference(_average(lumas, kept)), kept), [n for n in every if n not in kept]
