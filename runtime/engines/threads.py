"""How many CPU threads an inference gets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

MOST_MS = 5.0
"""A network that takes longer with all threads keeps them: one more or less late start of a thread
is little beside it."""
_LEAST_MS = 0.5
"""One that takes no longer on one thread needs no trial."""
_REST_S = 0.03
"""Between two frames; of a camera of 30 a second, a small network leaves about that. A shorter one
misses what is looked for: edge_unet_m on two threads took 2.4 to 3.0 ms when 4 ms lay between two
frames, and 4.9 to 6.0 with 30; on one thread 3.6 to 3.9 with either (INT8, means, an AMD EPYC)."""
_TURNS = 8
_AS_FAST = 1.1


def physical_cores() -> int:
    """Cores that this process may run on; two hardware threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 1) // 2)
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text(encoding="ascii"))
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def threads_each(threads: int | None, streams: int) -> int:
    """CPU threads of one inference: as asked, else the cores shared out among the streams."""
    return threads or max(1, physical_cores() // streams)


def told_threads(threads: int, streams: int) -> str:
    """`2 threads`, or `2 streams of 1 thread`."""
    each = f"{threads} thread{'s' if threads > 1 else ''}"
    return each if streams == 1 else f"{streams} streams of {each}"


def one_is_enough(all_threads: Callable[[], object], one_thread: Callable[[], object]) -> bool:
    """Whether a small network is as fast (or a tenth slower) on one thread as on all of them.

    Between two frames of a camera the threads of an inference sleep. Waking the others takes from
    microseconds to a tick of the system's scheduler, 4 ms, by machine and load: for a network of
    two milliseconds only a trial says what they bring. So each has its turns here, with a rest
    before every one, as from a camera. One thread leaves the other cores to camera and sink.

    Args:
        all_threads: draws a frame; was warmed up, and takes `MOST_MS` at most.
        one_thread: draws it on one thread; was warmed up.
    """
    if _fastest_ms(one_thread) <= max(_LEAST_MS, _AS_FAST * _fastest_ms(all_threads)):
        return True
    spent_ms: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TURNS):
        for run, spent in zip((all_threads, one_thread), spent_ms, strict=True):
            time.sleep(_REST_S)
            spent.append(_once_ms(run))
    # Late starts are a part of the turns, at first a small one; a single one is another program's.
    of_all, of_one = (sorted(spent)[3 * _TURNS // 4 - 1] for spent in spent_ms)
    return of_one <= _AS_FAST * of_all


def is_small(run: Callable[[], object]) -> bool:
    """Whether a network, warmed up, takes `MOST_MS` at most."""
    return _fastest_ms(run) <= MOST_MS


def _fastest_ms(run: Callable[[], object]) -> float:
    return min(_once_ms(run) for _ in range(3))


def _once_ms(run: Callable[[], object]) -> float:
    started_ns = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - started_ns) / 1e6
