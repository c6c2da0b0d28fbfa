"""How frames pass from thread to thread: the newest of each source only, or every one in order."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Ended(Exception):  # noqa: N818 - the normal end of a stream
    """Nothing will come any more."""


class Inbox(Generic[T]):
    """Where one or several threads put items, each into its own slot, and others take them.

    `newest`: a slot holds one item, the newest, and `put` never waits: whoever takes from it
    never works on an old frame. Otherwise a slot holds up to `capacity` items in order, and `put`
    waits for room: nothing is lost.

    Slots are served in turn, the one that was served longest ago first.

    Args:
        slots: how many.
        newest: keep only the newest item of each slot.
        capacity: of each slot, where every item counts.
    """

    def __init__(self, slots: int = 1, *, newest: bool, capacity: int = 2) -> None:
        self._items: list[deque[T]] = [deque() for _ in range(slots)]
        self._open = [True] * slots
        self._order = list(range(slots))
        self._newest = newest
        self._capacity = capacity
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    @property
    def closed(self) -> bool:
        """Whether nobody takes, or nobody puts, any more."""
        return self._closed

    def put(self, item: T, slot: int = 0) -> T | None:
        """Leave an item.

        Returns:
            What was lost by it: the older item that it replaced, or `item` itself where nobody
            will take any more; None where nothing was.
        """
        with self._changed:
            waiting = self._items[slot]
            lost: T | None = None
            if self._newest:
                lost = waiting.popleft() if waiting else None
            else:
                self._changed.wait_for(lambda: len(waiting) < self._capacity or self._closed)
            if self._closed:
                return item
            waiting.append(item)
            self._changed.notify_all()
            return lost

    def take(self, timeout_s: float | None = None, most: int = 1) -> list[tuple[int, T]]:
        """Up to `most` items that wait, at most one of each slot, with their slots.

        Returns:
            At least one; an empty list when none came in time.

        Raises:
            Ended: closed, and everything was taken.
            BaseException: what `close` was given, after everything was taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(self._items), timeout_s)
            if not any(self._items):
                if not self._closed:
                    return []
                if self._error is not None:
                    raise self._error
                raise Ended
            served = [slot for slot in self._order if self._items[slot]][:most]
            self._order = [slot for slot in self._order if slot not in served] + served
            taken = [(slot, self._items[slot].popleft()) for slot in served]
            self._changed.notify_all()
            return taken

    def waits_for_newer(self, slot: int, timeout_s: float) -> bool:
        """Wait, while an item is in a slot, until a newer one takes its place.

        Returns:
            False when none came in time, or when none was there.
        """
        with self._changed:
            if not self._items[slot]:
                return False
            item = self._items[slot][-1]

            def replaced() -> bool:
                return self._closed or not self._items[slot] or self._items[slot][-1] is not item

            return self._changed.wait_for(replaced, timeout_s)

    def end(self, slot: int) -> None:
        """Say that nothing follows in this slot; the last one to end closes."""
        with self._changed:
            self._open[slot] = False
            if not any(self._open):
                self.close()

    def close(self, error: BaseException | None = None) -> None:
        """Say that nothing will follow, and why; wakes whoever waits. The first call counts."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
                self._changed.notify_all()

    def empty(self) -> int:
        """Throw away what waits; returns how many items that were."""
        with self._changed:
            thrown = sum(map(len, self._items))
            for waiting in self._items:
                waiting.clear()
            self._changed.notify_all()
            return thrown
