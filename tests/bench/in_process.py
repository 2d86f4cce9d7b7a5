"""Run the balancer in this process, beside a thread that holds Python's lock; until SIGTERM.

    python -m tests.bench.in_process CONFIG HOLD

HOLD: `none`; `asleep`: a thread holds the GIL for 200 ms at a time and uses no CPU, so that nothing but
the GIL
is missing; `busy`: it computes meanwhile. From SIGUSR1 on, new flows are not the helper's business any
more, as
by a rule of choice that only Python knows. The queue's thread stays on the CPU that this was started on,
Python's
go to the generator's. Prints `ready`, and at the end JSON: the engine's counters, flow entries, copy or
zero-copy, how often and for how long the GIL was held.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from l4raw.netns.process import temporary_folder

from l4raw.cli.signals import stop_flag
from l4raw.control.balancer import Balancer
from l4raw.control.config import load
from l4raw.control.inspection import inspect
from l4raw.engine.shared import SharedTables
from tests.bench.testbed import GENERATOR_CPU

HOLD_S: Final = 0.2
NO_RULE: Final = 9
"""A number that no rule of choice has; see L4_MISS_RULE."""


class Holder(threading.Thread):
    """Holds the GIL, again and again."""

    def __init__(self, hold: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._hold = hold
        self.times: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Between two calls Python switches threads if another one waits."""
        while not self.stopped.is_set():
            start = time.monotonic()
            self._hold()
            self.times.append(time.monotonic() - start)


def holding(how: str) -> Callable[[], object]:
    """A call that does not let go of the GIL for HOLD_S."""
    if how == "asleep":
        library = ctypes.PyDLL(None)  # unlike CDLL, it keeps the GIL during a call
        return lambda: library.usleep(int(HOLD_S * 1e6))
    start = time.monotonic()
    sum(range(1_000_000))
    count = int(1_000_000 * HOLD_S / (time.monotonic() - start))
    return lambda: sum(range(count))


def leave_new_flows_to_python(tables: SharedTables) -> None:
    """Every service gets a rule that the helper has no look-up for."""
    services, limit = tables.layout.at["services"], tables.layout.sizes.services
    for number in range(2 * limit):
        services[number].rule = NO_RULE


def start(balancer: Balancer, holder: Holder | None) -> SharedTables:
    """Until everything runs; each thread on its CPU."""
    balancer.start()
    tables = balancer.tables
    assert isinstance(tables, SharedTables), "dataplane af_xdp"
    signal.signal(signal.SIGUSR1, lambda number, frame: leave_new_flows_to_python(tables))
    for _ in balancer.engine.poll(0):  # starts the queue's thread, which keeps this thread's CPU
        pass
    os.sched_setaffinity(0, {GENERATOR_CPU})
    if holder:
        holder.start()
    return tables


def run(config: Path, hold: str) -> dict[str, Any]:
    """Forward until SIGTERM."""
    settings = load(config, {}).config
    holder = None if hold == "none" else Holder(holding(hold))
    with stop_flag() as stopping, temporary_folder("l4raw-bench-run-") as folder:
        with Balancer(settings, inspect(settings), "bench", folder, b"bench") as balancer:
            tables = start(balancer, holder)
            print("ready", flush=True)
            balancer.run(stopping)
            if holder:
                holder.stopped.set()
                holder.join()
            mode = "zero-copy" if getattr(balancer.engine, "zero_copy", False) else "copy"
        times = holder.times if holder else []
        held = {"times": len(times), "longest": max(times, default=0.0)}
        return {
            "engine": balancer.final_statistics,
            "flows": len(tables.flows),
            "mode": mode,
            "held": held,
        }


def main() -> None:
    """See above."""
    config, hold = sys.argv[1:]
    print(json.dumps(run(Path(config), hold)))


if __name__ == "__main__":
    main()
