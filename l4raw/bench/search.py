"""The highest rate that is carried without loss, by halving. Pure: who carries it is an argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

STEPS: Final = 6
TRIES: Final = 3
"""Runs of a rate before it counts as not carried: another job on the CPU costs frames in some of them."""
CAUTION: Final = 0.9
"""Of the saturated rate, where the search begins."""


def highest(carried: Callable[[float], bool], most: float, steps: int = STEPS, tries: int = TRIES) -> float:
    """The highest of the rates tried that was carried once, 0 for none. `most`: none above it is tried.

    It begins with CAUTION of that, and halves what is between carried and not carried `steps` times.
    """
    low, high, rate = 0.0, most, most * CAUTION
    for _ in range(steps):
        if any(carried(rate) for _ in range(tries)):
            low = rate
        else:
            high = rate
        rate = (low + high) / 2
    return low
