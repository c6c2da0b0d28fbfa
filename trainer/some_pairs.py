"""A few of many pairs, evenly over all of them: files lie sorted, by camera or by place."""

from __future__ import annotations

from trainer.data import Pair, Pairs


class SomePairs:
    """`count` of the pairs of a set, in their order."""

    def __init__(self, pairs: Pairs, count: int) -> None:
        self._pairs = pairs
        self._chosen = [number * len(pairs) // count for number in range(count)]
        self.description = f"{pairs.description}, evenly over its {len(pairs)}"

    def __len__(self) -> int:
        return len(self._chosen)

    def pair(self, index: int, size_px: int) -> Pair:
        """Pair `index` of those that were chosen, resized to `size_px` x `size_px`."""
        return self._pairs.pair(self._chosen[index], size_px)

    def name(self, index: int) -> str:
        """Of pair `index` of those that were chosen."""
        return self._pairs.name(self._chosen[index])


def some_of(pairs: Pairs, count: int | None) -> Pairs:
    """At most `count` of them; None: all."""
    return pairs if count is None or count >= len(pairs) else SomePairs(pairs, count)
