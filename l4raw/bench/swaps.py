"""The balancer and the bare program in turns under one flood, which goes on while they change places.

A turn is some hundredths of a second, so that both meet the same host: where other machines share the
processor, its speed changes by a factor of two within a second. Lives here: those turns. Must not live here:
turns that have a load each (turns.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from l4raw.bench.bed import Bed
from l4raw.bench.generator import Order
from l4raw.bench.subject import BARE, OURS, Subject
from l4raw.bench.turns import Pair, take_turns

PAIRS: Final = 50
TURN_S: Final = 0.02
"""Shorter than what a host's other machines change in."""
_BETWEEN_S: Final = 0.03
"""Until a balancer has heard that it is its turn, or not any more; longer than it takes."""
_START_S: Final = 5.0
_LOOK_S: Final = 0.001


def swaps(
    bed: Bed,
    subject: Subject,
    order: Order,
    pairs: int = PAIRS,
    turn_s: float = TURN_S,
    each: Callable[[Pair], None] = lambda pair: None,
) -> list[Pair]:
    """So many pairs of turns under the flood `order`, whose seconds do not count.

    Raises RuntimeError where nothing arrives, or not until the end.
    """
    sink, generator = bed.sink, bed.generator
    sink.reset(timed=False, shift=bed.shift)

    def turn(who: str) -> Callable[[], float]:
        def take() -> float:
            subject.use(who)
            sink.expect(bed.shift if who == OURS else 0)
            frames, begin = sink.frames, time.monotonic()
            time.sleep(turn_s)
            return (sink.frames - frames) / (time.monotonic() - begin)

        return take

    # A pair more warms up.
    generator.begin(order._replace(seconds=2 * (pairs + 1) * (turn_s + _BETWEEN_S) + 0.2))
    try:
        deadline = time.monotonic() + _START_S
        while not sink.frames:
            if time.monotonic() > deadline:
                raise RuntimeError("nothing arrives at the backend")
            time.sleep(_LOOK_S)
        taken = take_turns(turn(OURS), turn(BARE), pairs, each)
        if generator.done:
            raise RuntimeError(
                "the load ended before the last turn: candidates change too slowly; take longer --seconds"
            )
        return taken
    finally:
        generator.finish()
        subject.use(OURS)
