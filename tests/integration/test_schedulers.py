"""Every scheduler with real connections: who answers how often, over each dataplane."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from l4raw.netns import Topology, dsr, nat

from l4raw.core.model import Scheduler
from l4raw.core.tables import Tables
from l4raw.engine.shared import SharedTables
from tests.integration.capture import wait_for
from tests.integration.in_process import balancer_in_this_process
from tests.integration.test_flows_stay import Build, Connection, echo_network

pytestmark = pytest.mark.root

PORTS = {scheduler: 1000 + number for number, scheduler in enumerate(Scheduler)}
"""A service for each."""
WEIGHTS = (1, 2, 3)
WEIGHTED = (Scheduler.MAGLEV, Scheduler.WRR, Scheduler.WLC, Scheduler.HRW)
QUICK = 'timeouts = { fin = "100ms" }\n'
CLIENTS = 8
SHARES = {"b1": 1 / 6, "b2": 2 / 6, "b3": 3 / 6}


def toml_for(network: Topology, dataplane: str) -> str:
    """All schedulers in one file."""
    texts = [
        network.config_toml(
            f"{port}/tcp",
            scheduler=scheduler,
            dataplane=dataplane,
            weights=WEIGHTS if scheduler in WEIGHTED else (),
            lb={"flow_memory": "256KiB"},  # small, so that all of it is looked at within half a second
        )
        for scheduler, port in PORTS.items()
    ]
    head = texts[0][: texts[0].index("[[service]]")]
    return head + "".join(text[text.index("[[service]]") :] for text in texts).replace(
        "backends = [", QUICK + "backends = ["
    )


def answers(network: Topology, scheduler: Scheduler, count: int, source: str = "") -> Counter[str]:
    """Who answered `count` connections that are closed again."""
    names: Counter[str] = Counter()
    for _ in range(count):
        connection = Connection(network, PORTS[scheduler], source)
        names[connection.ask("who?")] += 1
        connection.close()
    return names


class Held:
    """Connections to one service that stay open."""

    def __init__(self, network: Topology, tables: Tables, scheduler: Scheduler, stack: ExitStack) -> None:
        self._network, self._tables, self._scheduler, self._stack = network, tables, scheduler, stack
        self._open: list[tuple[str, Connection]] = []

    def more(self, count: int) -> Counter[str]:
        """Who answers so many new ones."""
        new = [Connection(self._network, PORTS[self._scheduler]) for _ in range(count)]
        for connection in new:
            self._stack.callback(connection.close)
        named = [(connection.ask("who?"), connection) for connection in new]
        self._open += named
        return Counter(name for name, _ in named)

    def end(self, name: str) -> None:
        """Close those to a backend, and wait until their flows are gone."""
        for _, connection in [each for each in self._open if each[0] == name]:
            connection.close()
        (number,) = [
            entry.number
            for entry in self._tables.policy.backends
            if entry and entry.backend.name == name and self._scheduler is self._of(entry.service)
        ]
        wait_for(lambda: self._tables.current_flows(number) == 0, f"the flows of {name} have expired")

    def _of(self, service: int) -> Scheduler | None:
        entry = self._tables.policy.by_number[service]
        return entry.service.scheduler if entry else None


def add_clients(network: Topology) -> list[str]:
    """Further addresses of the client."""
    net, device = network.client.address.rpartition(".")[0], network.client.links[0].interface
    addresses = [f"{net}.{200 + number}" for number in range(CLIENTS)]
    for address in addresses:
        network.client.run(["ip", "address", "add", f"{address}/24", "dev", device])
    return addresses


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("build", [dsr, nat])
def test_who_answers_with_each_scheduler(build: Build, dataplane: str, tmp_path: Path) -> None:
    with echo_network(build, PORTS.values()) as network, ExitStack() as stack:
        with balancer_in_this_process(network, toml_for(network, dataplane), tmp_path) as balancer:
            tables = balancer.tables
            assert answers(network, Scheduler.RR, 30) == {"b1": 10, "b2": 10, "b3": 10}
            assert answers(network, Scheduler.WRR, 60) == {"b1": 10, "b2": 20, "b3": 30}
            assert answers(network, Scheduler.MODULO, 60).keys() == SHARES.keys()
            for scheduler in (Scheduler.MAGLEV, Scheduler.HRW):
                found = answers(network, scheduler, 240)
                for name, share in SHARES.items():
                    # Six standard deviations of a binomial distribution.
                    assert abs(found[name] - 240 * share) < 6 * (240 * share * (1 - share)) ** 0.5, found

            of_clients = [answers(network, Scheduler.SH, 5, source) for source in add_clients(network)]
            assert all(len(found) == 1 for found in of_clients), of_clients
            assert len({name for found in of_clients for name in found}) > 1

            misses = tables.misses() if isinstance(tables, SharedTables) else {}
            assert not misses.get("rule"), misses

            fewest = Held(network, tables, Scheduler.LC, stack)
            assert fewest.more(9) == {"b1": 3, "b2": 3, "b3": 3}
            fewest.end("b2")
            assert fewest.more(3) == {"b2": 3}
            assert fewest.more(3) == {"b1": 1, "b2": 1, "b3": 1}
            weighted = Held(network, tables, Scheduler.WLC, stack)
            assert weighted.more(12) == {"b1": 2, "b2": 4, "b3": 6}
            weighted.end("b3")
            assert weighted.more(6) == {"b3": 6}

            if isinstance(tables, SharedTables):  # the first frame of each flow, and no other
                assert tables.misses()["rule"] == 9 + 3 + 3 + 12 + 6
