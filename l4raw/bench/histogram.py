"""The histograms of native/bpf/sink.bpf.c: sixteen buckets an octave, so a value is known to 6 %."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

BITS: Final = 4
BUCKETS: Final = 64 << BITS


class Histogram:
    """Counts of nanoseconds."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = tuple(counts)
        self.total = sum(counts)

    def percentile(self, share: float) -> int:
        """The ns that `share` (0.99: 99 %) of the values are below: the end of a bucket; 0 for none."""
        if not self.total:
            return 0
        index = next(i for i, seen in enumerate(accumulate(self.counts)) if seen >= share * self.total)
        return upper_bound(index)


def upper_bound(index: int) -> int:
    """Nanoseconds that the values of a bucket are below."""
    each = 1 << BITS
    if index < each:  # the next three octaves' are never used: their values are in these
        return index + 1
    return each + 1 + index % each << index // each - BITS
