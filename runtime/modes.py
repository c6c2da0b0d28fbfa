"""The two ways to run, by name."""

from __future__ import annotations

from runtime.engines.threads import physical_cores

MODES = ("latency", "throughput")

_MOST_STREAMS = 4
"""Each inference at once has activations of its own: more would cost memory for little."""


def mode_for(live: bool, mode: str | None = None) -> str:
    """The mode asked for, or the one that fits the sources.

    Raises:
        ValueError: no such mode.
    """
    if mode is None:
        return "latency" if live else "throughput"
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {MODES}")
    return mode


def streams_for(mode: str) -> int:
    """How many inferences a CPU runs at once in a mode.

    For latency one, on all cores. For throughput one a core: two inferences of one thread each
    never wait for each other, as two threads of one inference do at the end of each layer.
    """
    return min(_MOST_STREAMS, physical_cores()) if mode == "throughput" else 1
