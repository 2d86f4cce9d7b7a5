"""Two candidates in turns, so that both meet the same noise: the order, and what pairs of turns tell.

Lives here: pure functions over whatever takes a turn. Must not live here: what a turn does (swaps.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median, quantiles
from typing import Final, NamedTuple

PAIRS: Final = 10

Turn = Callable[[], float]
"""Takes the place of the other, and returns frames/s."""


class Pair(NamedTuple):
    """A turn of each, one right after the other: frames/s."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Ours of theirs; 0 where theirs is none."""
        return self.ours / self.theirs if self.theirs else 0.0


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Of one value or more."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(median(values), low, high)


def take_turns(
    ours: Turn, theirs: Turn, pairs: int = PAIRS, each: Callable[[Pair], None] = lambda pair: None
) -> list[Pair]:
    """ABBA...: what drifts is for both alike. The first two warm up. `each` is told of each pair."""
    ours(), theirs()
    found = []
    for number in range(pairs):
        if number % 2:
            second = theirs()
            pair = Pair(ours(), second)
        else:
            first = ours()
            pair = Pair(first, theirs())
        found.append(pair)
        each(pair)
    return found
