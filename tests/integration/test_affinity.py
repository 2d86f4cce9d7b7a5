"""`affinity` with real connections: a client stays with one backend until that leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
from l4raw.netns import Topology, nat

from l4raw.core.tables import Tables
from tests.integration.capture import wait_for
from tests.integration.in_process import balancer_in_this_process
from tests.integration.test_flows_stay import Build, Connection, echo_network
from tests.integration.test_health import gateway
from tests.integration.test_limits import add_address, each_dataplane, each_mode, limited

pytestmark = pytest.mark.root

CHECK = 'affinity = "5m"\ncheck = { interval = "100ms", timeout = "80ms", rise = 1, fall = 1 }'


def answers(network: Topology, source: str, count: int) -> set[str]:
    """Who answered so many connections, one after the other."""
    names = set()
    for _ in range(count):
        connection = Connection(network, source=source)
        names.add(connection.ask("who?"))
        connection.close()
    return names


def in_turn(tables: Tables) -> int:
    """Backends that take new flows."""
    (service,) = tables.policy.services.values()
    return len(service.ring.slots)


@each_dataplane
@each_mode
def test_a_client_stays_with_one_backend_until_that_leaves(
    build: Build, dataplane: str, tmp_path: Path
) -> None:
    with echo_network(build) as network:
        other = add_address(network, 66)
        with balancer_in_this_process(network, limited(network, dataplane, CHECK), tmp_path) as balancer:
            tables = balancer.tables
            (first,) = answers(network, "", 10)
            (second,) = answers(network, other, 10)
            assert first != second
            assert answers(network, "", 10) == {first}, "also between those of others"

            (host,) = [each for each in network.backends if each.name == first]
            host.ip("link set eth0 down")
            wait_for(lambda: in_turn(tables) == 2, "it has left")
            (elsewhere,) = answers(network, "", 10)
            assert elsewhere != first
            assert answers(network, other, 10) == {second}
            host.ip("link set eth0 up")
            if build is nat:
                host.ip(f"route add default via {gateway(network)}")
            wait_for(lambda: in_turn(tables) == 3, "it is back")
            assert answers(network, "", 10) == {elsewhere}
