"""The balancer with a clock between its steps: where the time of a frame goes.

    stages.py CONFIG

The steps are those of `forward` in l4raw/engine/base.py, called by `Balancer.run` as in `l4raw up`. Prints
`ready`, and on SIGTERM nanoseconds a frame for each stage, as JSON. What reading the clock takes in a loop
is taken off. What it takes more in place, and the calls of the wrappers below, are not: 4 to 7 % of a frame.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns as clock
from typing import Self

from l4raw.cli.signals import stop_flag
from l4raw.control.balancer import Balancer
from l4raw.control.config import load
from l4raw.control.inspection import inspect
from l4raw.control.lock import default_run_dir
from l4raw.core.decision import Decision
from l4raw.core.steer import steer
from l4raw.core.tables import Tables
from l4raw.engine.base import Engine, Received
from l4raw.wire.headers import Frame

STEPS = ("receive", "steer", "apply", "send", "count")
"""Of each frame, in this order."""
LOOP = "loop"
"""Of each burst: the end of a poll, the clock, expiry."""
_READINGS = 100_000


class Timed:
    """An engine that times the steps; `decide` stands for steer(). Waits for a frame do not count."""

    def __init__(self, engine: Engine) -> None:
        self.frames = 0
        self.bursts = 0
        self.spent = dict.fromkeys((*STEPS, LOOP), 0)
        self._engine = engine
        self._times: list[int] = []
        """Of this burst: when it began, and when each step of each frame ended."""
        self._note = self._times.append
        self._left: int | None = None
        """When the burst before ended, if there were frames in it."""

    def open(self) -> Self:
        """Open the engine."""
        self._engine.open()
        return self

    def poll(self, timeout: float) -> Iterator[Received]:
        """The engine's frames."""
        note = self._note
        note(clock())
        for received in self._engine.poll(timeout):
            note(clock())
            yield received
            note(clock())
        self._add_up(clock())

    def decide(self, frame: Frame, arm: int, csum_start: int, tables: Tables, segment: int) -> Decision:
        """steer()"""
        decision = steer(frame, arm, csum_start, tables, segment)
        self._note(clock())
        return decision

    def send(self, received: Received, arm: int, made: bytes | None = None) -> bool:
        """Send by the engine; what lies between the decision and this call is `apply`."""
        self._note(clock())
        sent = self._engine.send(received, arm, made)
        self._note(clock())
        return sent

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def statistics(self) -> dict[str, int]:
        """The engine's."""
        return self._engine.statistics()

    def _add_up(self, end: int) -> None:
        times, count = self._times, len(STEPS)
        frames, rest = divmod(len(times) - 1, count)
        assert not rest, "every frame takes every step: each is forwarded"
        for number, step in enumerate(STEPS):
            self.spent[step] += sum(times[number + 1 :: count]) - sum(times[number:-1:count])
        if frames:
            self.spent[LOOP] += end - times[-1]
            if self._left is not None:
                self.spent[LOOP] += times[0] - self._left
        self.frames += frames
        self.bursts += frames > 0
        times.clear()
        self._left = clock() if frames else None


def reading_ns() -> float:
    """What it takes to read the clock and note it."""
    times: list[int] = []
    note = times.append
    for _ in range(_READINGS):
        note(clock())
    return (times[-1] - times[0]) / _READINGS


def main() -> None:
    """Balance until SIGTERM."""
    config = load(Path(sys.argv[1]), os.environ).config
    balancer = Balancer(config, inspect(config), "stages", default_run_dir(), b"bench")
    balancer.open()
    balancer.engine = timed = Timed(balancer.engine)
    with stop_flag() as stopping, balancer:
        balancer.start()
        print("ready", flush=True)
        balancer.run(stopping, None, timed.decide)
    reading = reading_ns()
    stages = {step: timed.spent[step] / timed.frames - reading for step in STEPS}
    loop = (timed.spent[LOOP] - 2 * reading * timed.bursts) / timed.frames
    print(json.dumps({"stages": {**stages, LOOP: loop}}))


if __name__ == "__main__":
    main()
