"""Which measurements count, where the host is shared.

A virtual processor may share its core with a neighbour that nobody here sees; then
everything takes up to twice as long, for seconds or minutes, also by the clock of
the thread. A yardstick tells: a loop of additions, around each measurement. What
counts are measurements between two of its readings that are near the best one; how
long they took has no say in it. A neighbour that takes cache or memory alone is
not seen: where a table is large, that is in the figures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

ROUNDS = 7
"""That are undisturbed, of each way; more are made until there are so many, or for so long:"""
PATIENCE_S = 60.0
PAUSE_S = 0.02
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
        before = self._read()
        took = ns()
        self._taken[way].append((min(before, self._read()), took))

    def wanted(self) -> Iterator[None]:
        """Once for each round, until enough of them count, or patience is at an end."""
        end = time.monotonic() + PATIENCE_S
        rounds = 0
        while rounds < ROUNDS or (self.undisturbed < ROUNDS and time.monotonic() < end):
            while self._read() < NEAR * self._best and time.monotonic() < end:
                time.sleep(PAUSE_S)
            rounds += 1
            yield

    @property
    def undisturbed(self) -> int:
        """Rounds that count, of the way that has fewest."""
        return min(len(self._near(taken)) for taken in self._taken.values())

    def medians(self) -> list[float]:
        """Of each way: of the rounds that count; where they are few, of those with the best readings."""
        taken = map(self._counting, self._taken.values())
        return [statistics.median(took for _, took in each) for each in taken]

    def __str__(self) -> str:
        readings = [reading for taken in self._taken.values() for reading, _ in taken]
        rounds = min(map(len, self._taken.values()))
        few = f", so the {ROUNDS} with the best readings" if self.undisturbed < ROUNDS else ""
        of = f"{self.undisturbed} of {rounds} rounds undisturbed{few}"
        return f"{of}; {min(readings):.1f} to {max(readings):.1f} additions/ns, best {self._best:.1f}"

    def _read(self) -> float:
        reading: float = self._lib.yardstick()
        self._best = max(self._best, reading)
        return reading

    def _counting(self, taken: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return sorted(taken, key=lambda each: -each[0])[: max(ROUNDS, len(self._near(taken)))]

    def _near(self, taken: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [each for each in taken if each[0] >= NEAR * self._best]
