"""The histograms of native/bpf/sink.bpf.c: four buckets an octave, so a value is known to 25 % or better."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

BUCKETS: Final = 256


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
    """Nanoseconds that the values of a bucket are below. Buckets 4 to 7 are never used."""
    if index < 4:
        return index + 1
    return 5 + index % 4 << index // 4 - 2
