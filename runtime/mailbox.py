"""How frames pass from thread to thread: the newest one only, or every one in order."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Ended(Exception):  # noqa: N818 - the normal end of a stream
    """Nothing will come any more."""


class _Passage(Generic[T]):
    """What both ways share: taking, closing, and an error that reaches the taker."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    @property
    def closed(self) -> bool:
        """Whether nobody puts, or nobody takes, any more."""
        return self._closed

    def take(self, timeout_s: float | None = None) -> T | None:
        """The oldest item that waits; None when none came in time.

        Raises:
            Ended: closed, and everything was taken.
            BaseException: what `close` was given, after everything was taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if not self._closed:
                return None
            if self._error is not None:
                raise self._error
            raise Ended

    def close(self, error: BaseException | None = None) -> None:
        """Say that nothing will follow, and why; wakes whoever waits. The first call counts."""
        with self._changed:
            if not self._closed:
                self._closed, self._error = True, error
                self._changed.notify_all()


class Mailbox(_Passage[T]):
    """Holds one item, the newest: whoever takes from it never works on an old frame."""

    def put(self, item: T) -> T | None:
        """Leave an item without waiting; returns the one that it replaced, unread."""
        with self._changed:
            replaced = self._items.popleft() if self._items else None
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return replaced


class BoundedQueue(_Passage[T]):
    """Holds up to `capacity` items in order: whoever puts waits, and nothing is lost."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def put(self, item: T) -> bool:
        """Wait for room and leave an item; False when nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._capacity or self._closed)
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True
