"""What a service may be limited by, with real clients, over each dataplane: `mss_clamp`, `acl`, `limits`."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest
from l4raw.netns import Topology, dsr, nat

from l4raw.core.tables import Tables
from l4raw.wire.abi import DROP_ACL, DROP_CLIENT_FLOWS, DROP_SERVICE_FLOWS
from tests.integration.capture import wait_for
from tests.integration.in_process import balancer_in_this_process
from tests.integration.test_flows_stay import PORT, Build, Connection, echo_network

pytestmark = pytest.mark.root

each_dataplane = pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
each_mode = pytest.mark.parametrize("build", [dsr, nat])

CLAMP = 1000


def limited(network: Topology, dataplane: str, key: str, scheduler: str = "rr") -> str:
    """A service with one more key."""
    text = network.config_toml(f"{PORT}/tcp", dataplane=dataplane, scheduler=scheduler)
    return text.replace("backends = [", f"{key}\nbackends = [")


def add_address(network: Topology, last: int) -> str:
    """One more of the client."""
    address = f"{network.client.address.rpartition('.')[0]}.{last}"
    network.client.run(["ip", "address", "add", f"{address}/24", "dev", network.client.links[0].interface])
    return address


def counted(tables: Tables, verdict: int) -> int:
    """Frames with this verdict."""
    return tables.total_verdicts()[verdict]


@each_dataplane
@each_mode
def test_both_ends_of_nat_and_the_backend_of_dsr_send_small_segments(
    build: Build, dataplane: str, tmp_path: Path
) -> None:
    with (
        echo_network(build) as network,
        balancer_in_this_process(network, limited(network, dataplane, f"mss_clamp = {CLAMP}"), tmp_path),
    ):
        connection = Connection(network)
        try:
            assert connection.ask("x" * 5000)
            # What this end may send a segment, less 12 bytes of timestamps: RFC 7323, section 3.2.
            client = connection.mss()
            of_client = ["ss", "-tinH", "dst", network.client.address]  # and not a health check's
            ends = [row for host in network.backends for row in host.run(of_client).stdout.splitlines()]
            backend = [word for row in ends for word in row.split() if word.startswith("mss:")]
        finally:
            connection.close()
        assert backend == [f"mss:{CLAMP - 12}"]
        assert client == (CLAMP - 12 if build is nat else 1448)


@each_dataplane
@each_mode
def test_a_denied_client_gets_no_answer_and_is_counted(build: Build, dataplane: str, tmp_path: Path) -> None:
    with echo_network(build) as network:
        denied, single = add_address(network, 66), add_address(network, 67)
        net = network.client.address.rpartition(".")[0]
        acl = f'acl = {{ allow = ["{net}.0/24", "{single}"], deny = ["{net}.64/30"] }}'
        with balancer_in_this_process(network, limited(network, dataplane, acl), tmp_path) as balancer:
            tables = balancer.tables
            for source in ("", single):
                connection = Connection(network, source=source)
                assert connection.ask("who?")
                connection.close()
            assert tables.total_verdicts()[DROP_ACL] == 0
            with network.client.enter():
                refused = socket.socket()
            with refused:
                refused.bind((denied, 0))
                refused.setblocking(False)
                refused.connect_ex((network.vip, PORT))
                wait_for(lambda: tables.total_verdicts()[DROP_ACL] >= 2, "its SYN was sent twice and dropped")


@each_dataplane
@each_mode
def test_one_more_than_allowed_waits_until_one_has_ended(
    build: Build, dataplane: str, tmp_path: Path
) -> None:
    with echo_network(build) as network:
        other = add_address(network, 66)
        key = 'limits = { client_flows = 2, flows = 3 }\ntimeouts = { fin = "100ms" }'
        toml = limited(network, dataplane, key)
        toml = toml.replace("[lb]", '[lb]\nflow_memory = "256KiB"')
        with balancer_in_this_process(network, toml, tmp_path) as balancer:
            tables = balancer.tables
            first, second = Connection(network), Connection(network)
            third = Connection(network, source=other)
            assert tables.counts.flows(1) == 3
            for source, verdict in (("", DROP_CLIENT_FLOWS), (other, DROP_SERVICE_FLOWS)):
                with network.client.enter():
                    waiting = socket.socket()
                with waiting:
                    waiting.bind((source, 0))
                    waiting.setblocking(False)
                    waiting.connect_ex((network.vip, PORT))
                    wait_for(partial(counted, tables, verdict), "its SYN was dropped")
            assert first.ask("still there?") and second.ask("still there?") and third.ask("still there?")
            first.close()
            wait_for(lambda: tables.counts.flows(1) == 2, "the flow has expired")
            again = Connection(network)
            assert again.ask("let in?")
            for connection in (second, third, again):
                connection.close()
            wait_for(lambda: tables.counts.flows(1) == 0, "all have expired")
