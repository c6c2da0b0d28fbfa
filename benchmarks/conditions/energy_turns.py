"""The energy of a frame: turns so long that the sensors can tell one row from another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.conditions.power import PowerMeter, Turn, energy_json
from benchmarks.rounds.measure import Measured, Result, one_by_one
from benchmarks.rounds.source import EndlessSource
from benchmarks.timing import balanced
from runtime.errors import SinkError, SourceError, UserError
from runtime.sinks import Sink

TURNS = 3
"""Of each row."""
_LONGER = 1.5
"""Than the shortest turn that means something: frames are not all alike."""


def energy_turns(
    results: Sequence[Result], source: EndlessSource, sink: Sink, meter: PowerMeter
) -> dict[str, dict[str, Any]]:
    """What a frame takes of each row that was measured, one frame at a time, by the row's name.

    These turns come after the rounds: those are too short for any sensor.

    Raises:
        SourceError, SinkError: of the source or the sink.
    """
    measured = [result for result in results if isinstance(result, Measured)]
    turns: dict[str, list[Turn]] = {result.row.name: [] for result in measured}
    for number in range(TURNS):
        for result in balanced(measured, number):
            frame_ms = median(median(part) for part in result.one_by_one_ms)
            frames = math.ceil(_LONGER * meter.shortest_turn_ms / frame_ms)
            try:
                samples = one_by_one(result.row, source, sink, frames)
            except (SourceError, SinkError):
                raise
            except UserError:
                continue  # its times stand; it has no energy, or that of fewer turns
            stamps_ns = [sample["done_at_ns"] for sample in samples]
            turns[result.row.name].append(Turn(stamps_ns[0], stamps_ns[-1], frames))
    told = {name: energy_json(meter, of_row) for name, of_row in turns.items()}
    return {name: energy for name, energy in told.items() if energy is not None}
