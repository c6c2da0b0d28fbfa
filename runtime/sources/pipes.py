"""Reading from pipes with a limit of time, and waking the reader from another thread."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Sequence


class Waker:
    """Gets a thread that waits for pipes back at once, for good."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        self._lock = threading.Lock()
        self._closed = False
        self.woken = False

    def wake(self) -> None:
        """Every `wait` that waits, and every later one, returns at once."""
        with self._lock:
            self.woken = True
            if not self._closed:
                os.write(self._writing, b"!")

    def wait(self, descriptors: Sequence[int], timeout_s: float | None) -> list[int]:
        """Those of the descriptors that can be read or have ended.

        Returns:
            Empty when it was woken, or when the time was over.
        """
        if self.woken:
            return []
        poll = select.poll()
        for descriptor in (self._reading, *descriptors):
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)
        if self.woken:
            return []
        return [descriptor for descriptor, _ in ready if descriptor != self._reading]

    def close(self) -> None:
        """Not while another thread is in `wait`. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self.woken = True
                os.close(self._reading)
                os.close(self._writing)


def read_some(descriptor: int, into: memoryview) -> int:
    """Read what is there, at least one byte where `wait` said so; 0 at the end."""
    return os.readv(descriptor, [into])


def fill(
    waker: Waker, descriptor: int, into: memoryview, filled: int, timeout_s: float | None
) -> tuple[int, bool]:
    """Read until `into` is full.

    Args:
        filled: how many of its bytes are there already.
        timeout_s: the longest silence; None: any.

    Returns:
        How many bytes are there now, and whether the pipe has ended. Fewer than asked without an
        end: woken, or silent for too long.
    """
    while filled < len(into):
        if not waker.wait([descriptor], timeout_s):
            return filled, False
        count = read_some(descriptor, into[filled:])
        if count == 0:
            return filled, True
        filled += count
    return filled, False


def seconds_left(until_s: float) -> float:
    """From now until a time of `time.monotonic`, not below zero."""
    return max(0.0, until_s - time.monotonic())
