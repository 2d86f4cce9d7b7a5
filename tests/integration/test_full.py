"""More connections than the flow table has room for, from a real client to real servers: the key `full`."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from l4raw.netns import dsr, nat

from l4raw.wire.abi import DROP_FLOWS_FULL, EVENT_EVICTED_OLDEST, EVENT_STATELESS
from tests.integration.in_process import balancer_in_this_process
from tests.integration.test_flows_stay import PORT, Build, Connection, echo_network

pytestmark = pytest.mark.root

MORE = 60
"""Connections beyond those that the table has room for."""


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize(
    ("build", "full"), [(dsr, "stateless"), (dsr, "evict-oldest"), (nat, "evict-oldest")]
)
def test_there_are_more_connections_than_entries(
    build: Build, full: str, dataplane: str, tmp_path: Path
) -> None:
    with echo_network(build) as network, ExitStack() as stack:
        toml = network.config_toml(f"{PORT}/tcp", dataplane=dataplane, scheduler="maglev")
        toml = toml.replace("[lb]", '[lb]\nflow_memory = "64KiB"').replace(
            "backends = [", f'full = "{full}"\nbackends = ['
        )
        with balancer_in_this_process(network, toml, tmp_path) as balancer:
            tables = balancer.tables
            room = tables.flows.capacity // (2 if build is nat else 1)
            held, names = [], []
            for number in range(room + MORE):
                held.append(stack.enter_context(closing(Connection(network))))
                names.append(held[-1].ask(f"connection {number}"))
            events = tables.total_events()
            counted = events[EVENT_STATELESS if full == "stateless" else EVENT_EVICTED_OLDEST]
            assert counted >= MORE
            assert tables.total_verdicts()[DROP_FLOWS_FULL] == 0
            if build is dsr:  # The hash finds each one's backend, with an entry and without.
                assert [connection.ask("again") for connection in held] == names
                assert len(set(names)) == len(network.backends)
            stack.close()
