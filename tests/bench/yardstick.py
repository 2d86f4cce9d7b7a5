"""Which measurements count, where the host is shared.

A virtual processor may share its core with a neighbour that nobody here sees; then
everything takes up to twice as long, for seconds or minutes, also by the clock of
the thread. A yardstick tells: a loop of additions, around each measurement. What
counts are measurements between two of its readings that are near the best one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

ROUNDS = 7
"""That are undisturbed, of each way; more are made until there are so many:"""
MOST_ROUNDS = 100
NEAR = 0.9
"""Of the yardstick's best reading: whoever shares the core takes more than a tenth of it."""

YARDSTICK = r"""
/* Additions a nanosecond, of four chains side by side. */
static double yardstick(void)
{
	uint64_t a = 0, b = 0, c = 0, d = 0, start = now_ns();
	uint32_t i;

	for (i = 0; i < 1000000; i++) {
		a++, b++, c++, d++;
		__asm__ __volatile__("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
		a++, b++, c++, d++;
		__asm__ __volatile__("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
	}
	return (double)(a + b + c + d) / (double)(now_ns() - start);
}
"""


class Rounds:
    """Measurements, each between two readings of the yardstick, whose best one is that of the whole run."""

    def __init__(self, module: Any) -> None:
        self._lib, self._best = module.lib, 0.0
        self._taken: dict[int, list[tuple[float, float]]] = {}

    def restart(self, ways: tuple[int, ...]) -> None:
        """Of something else from now on."""
        self._taken = {way: [] for way in ways}

    def take(self, way: int, ns: Callable[[], float]) -> None:
        """Measure it."""
        before = self._lib.yardstick()
        took = ns()
        readings = before, self._lib.yardstick()
        self._best = max(self._best, *readings)
        self._taken[way].append((min(readings), took))

    def wanted(self) -> Iterator[None]:
        """Once for each round, until enough of them count, or there have been too many."""
        for number in range(MOST_ROUNDS):
            if number >= ROUNDS and self.undisturbed >= ROUNDS:
                return
            yield

    @property
    def undisturbed(self) -> int:
        """Rounds that count, of the way that has fewest."""
        return min(len(self._near(way)) for way in self._taken)

    def medians(self) -> list[float]:
        """Of each way: of the rounds that count, or of all if those are too few."""
        few = self.undisturbed < ROUNDS
        return [
            statistics.median([took for _, took in taken] if few else self._near(way))
            for way, taken in self._taken.items()
        ]

    def __str__(self) -> str:
        taken = list(self._taken.values())
        readings = [reading for way in taken for reading, _ in way]
        few = " and all count" if self.undisturbed < ROUNDS else ""
        of = f"{self.undisturbed} of {len(taken[0])} rounds undisturbed{few}"
        return f"{of}; {min(readings):.1f} to {max(readings):.1f} additions/ns, best {self._best:.1f}"

    def _near(self, way: int) -> list[float]:
        return [took for reading, took in self._taken[way] if reading >= NEAR * self._best]
