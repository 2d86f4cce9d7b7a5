"""A client whose connection the balancer has lost is told so, and does not wait for an answer."""

from __future__ import annotations

import socket
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from l4raw.netns import Topology, dsr, fullnat, nat

from l4raw.core.tables import Tables
from l4raw.engine.afxdp import AfXdpEngine
from l4raw.wire.abi import DROP_NO_FLOW, FLOW_FREE, FLOW_RESTING
from tests.integration.in_process import assert_no_frame_leaked, balancer_in_this_process
from tests.integration.running import running
from tests.integration.test_flows_stay import PORT, echo_network

pytestmark = pytest.mark.root


class Build(Protocol):
    """Makes a topology."""

    def __call__(self, *args: object, **options: object) -> AbstractContextManager[Topology]: ...


def connect(network: Topology, stack: ExitStack) -> socket.socket:
    """A connection of the client's to the VIP, on which a line was echoed."""
    with network.client.enter():
        connection = stack.enter_context(socket.create_connection((network.vip, PORT), 10))
    connection.sendall(b"one\n")
    assert connection.recv(100).endswith(b" one\n")
    return connection


def forget(tables: Tables) -> int:
    """Remove every flow, as if it had expired; returns how many there were."""
    flows, gone = tables.flows, 0
    for index in range(flows.entries + flows.overflow):
        entry = flows.read(index)
        if entry.state not in (FLOW_FREE, FLOW_RESTING) and not entry.next_hop:
            gone += tables.free(index, entry.lock)
    return gone


def seconds_until_told(connection: socket.socket) -> float:
    """Say one more line, whose answer is a reset."""
    began = time.monotonic()
    with pytest.raises(ConnectionResetError):
        # Already here, if the last answer was not acknowledged before.
        connection.sendall(b"two\n")
        connection.recv(100)
    return time.monotonic() - began


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("build", [nat, fullnat])
def test_a_client_whose_flow_is_gone_is_told(build: Build, dataplane: str, tmp_path: Path) -> None:
    with echo_network(build) as network, ExitStack() as stack:
        toml = network.config_toml(f"{PORT}/tcp", dataplane=dataplane)
        with balancer_in_this_process(network, toml, tmp_path) as balancer:
            connections = [connect(network, stack) for _ in range(3)]
            assert forget(balancer.tables) == 3
            assert max(map(seconds_until_told, connections)) < 1
            if isinstance(balancer.engine, AfXdpEngine):
                assert_no_frame_leaked(balancer.engine)
            connect(network, stack)
        assert balancer.tables.total_verdicts()[DROP_NO_FLOW] == 3, "nobody has tried again"


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
def test_a_client_from_before_a_restart_is_told(dataplane: str) -> None:
    with echo_network(nat) as network, ExitStack() as stack:
        toml = network.config_toml(f"{PORT}/tcp", dataplane=dataplane)
        with running(network, toml):
            connection = connect(network, stack)
        with running(network, toml) as balancer:
            assert seconds_until_told(connection) < 1
        assert balancer.verdict("drop_no_flow") >= 1


def test_under_direct_return_the_connection_stays(tmp_path: Path) -> None:
    """The balancer does not know it, and resets nothing: it is the backend's to say."""
    with echo_network(dsr) as network, ExitStack() as stack:
        toml = network.config_toml(f"{PORT}/tcp", scheduler="rr", dataplane="raw")
        with balancer_in_this_process(network, toml, tmp_path) as balancer:
            connection = connect(network, stack)
            assert forget(balancer.tables) == 1
            connection.sendall(b"two\n")
            connection.settimeout(1)
            with pytest.raises(TimeoutError):
                connection.recv(100)
            assert balancer.tables.total_verdicts()[DROP_NO_FLOW] >= 1
