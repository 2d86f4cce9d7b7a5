"""Run the balancer in this process with the generator's known flows in its table, until SIGTERM.

    python -m tests.bench.kernel_up CONFIG FLOWS

Prints `ready`, and at the end JSON: the engine's counters, the verdicts and how many flows the kernel path
made. The queue's thread stays on the CPU that this was started on, Python's go to the generator's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from l4raw.netns.process import temporary_folder

from l4raw.cli.signals import stop_flag
from l4raw.control.balancer import Balancer
from l4raw.control.config import load
from l4raw.control.inspection import inspect
from l4raw.core.flows import flow_key
from l4raw.core.tables import Tables
from l4raw.wire.abi import FLOW_UDP, VERDICT_NAMES
from l4raw.wire.ipv4 import UDP
from tests.bench.load_frame import FIRST_KNOWN, PORT
from tests.bench.testbed import GENERATOR_CPU
from tests.kernel import made_by_kernel

_PORTS_LOG2, _FIRST_PORT = 14, 1024
"""Of a source address, as in generator.bpf.c."""


def establish(tables: Tables, flows: int) -> None:
    """Enter them as streams, to the first backend of the first service."""
    service = next(entry for entry in tables.policy.by_number if entry)
    backend = next(each for each in tables.policy.backends if each and each.service == service.number)
    what = FLOW_UDP, service.number, backend.number
    hop = tables.next_hops.learn(0, bytes((2, 0, 0, 0, 0, 1))) if service.service.mode.is_nat else 0
    for flow in range(flows):
        number = int.from_bytes(FIRST_KNOWN) + (flow >> _PORTS_LOG2)
        source, port = number.to_bytes(4), _FIRST_PORT + (flow & (1 << _PORTS_LOG2) - 1)
        key = flow_key(source, port, service.service.vip, PORT, UDP)
        if hop:
            reply = flow_key(backend.backend.address, PORT, source, port, UDP)
            tables.flows.insert_pair(key, reply, *what, hop, tables.now)
        else:
            tables.flows.insert(key, *what, 0, tables.now)


def run(config: Path, flows: int) -> dict[str, Any]:
    """Forward until SIGTERM."""
    settings = load(config, {}).config
    with stop_flag() as stopping, temporary_folder("l4raw-bench-run-") as folder:
        with Balancer(settings, inspect(settings), "bench", folder, b"bench") as balancer:
            balancer.start()
            for _ in balancer.engine.poll(0):  # starts the queue's thread, which keeps this thread's CPU
                pass
            os.sched_setaffinity(0, {GENERATOR_CPU})
            establish(balancer.tables, flows)
            print("ready", flush=True)
            balancer.run(stopping)
            verdicts = balancer.tables.total_verdicts()
            made = made_by_kernel(balancer.tables)
        named = {name: count for name, count in zip(VERDICT_NAMES, verdicts, strict=True) if count}
        return {"engine": balancer.final_statistics, "verdicts": named, "made_by_kernel": made}


def main() -> None:
    """See above."""
    config, flows = sys.argv[1:]
    print(json.dumps(run(Path(config), int(flows))))


if __name__ == "__main__":
    main()
