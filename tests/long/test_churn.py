"""Many more connections than the flow table has room for, one after the other: what ends makes room."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from l4raw.netns import Log, nat
from l4raw.netns.clients import many_requests
from l4raw.netns.servers import web

from tests.integration.running import running

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

BATCH, BATCHES = 10_000, 6
TIMEOUTS = 'timeouts = { syn = "1s", established = "5s", fin = "1s" }\n'
GROWTH_KIB = 2_048
"""More than the interpreter's own ups and downs; a leak of 50 bytes a connection is more."""


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_connections_come_and_go_without_end() -> None:
    with nat(log=Log(silent=True)) as network, ExitStack() as stack:
        for backend in network.backends:
            stack.enter_context(web(backend))
        toml = network.config_toml(lb={"flow_memory": "1MiB"}).replace(
            "backends = [", TIMEOUTS + "backends = ["
        )
        answers: Counter[str] = Counter()
        with running(network, toml) as balancer:
            resident = []
            for _ in range(BATCHES):
                answers += many_requests(network.client, f"http://{network.vip}/", BATCH)
                resident.append(resident_kib(balancer.process.pid))
    names = {backend.name for backend in network.backends}
    assert set(answers) == names and answers.total() == BATCH * BATCHES
    flows = sum(balancer.backends().values())
    # Fewer than connections: a port that the client takes again soon finds its flow still there.
    assert 2 * flows > 5 * balancer.counters["flow_capacity"]
    assert balancer.verdict("drop_flows_full") == 0
    # The first batch has filled what fills once.
    assert max(resident[1:]) - resident[0] < GROWTH_KIB, resident
