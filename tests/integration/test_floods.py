"""A flood of segments that open flows, or pretend to belong to some, breaks no connection that transfers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import pytest
from l4raw.netns import Topology, dsr, nat

from l4raw.core.flows import buckets_in, bytes_for
from l4raw.wire import tcp
from l4raw.wire.abi import CAPACITY_PERCENT, SLOTS
from l4raw.wire.ethernet import parse_mac
from l4raw.wire.ipv4 import TCP
from tests.crafted import Tuple5
from tests.crafted import build as build_frame
from tests.integration.running import running
from tests.integration.test_flows_stay import PORT, Build, echo_network, open_connections
from tests.tables import ip

pytestmark = pytest.mark.root

OPEN = 1000
"""Connections that transfer meanwhile."""
ROUNDS = 50
"""Parts of a flood; between two of them each fiftieth connection transfers: each one does so once."""
TEXT = "x" * 2000
MEMORY = 256 << 10
TIMES = 10
"""The flood is so many times the table's capacity."""


def capacity() -> int:
    """Flow entries that find room in MEMORY."""
    buckets = buckets_in(MEMORY)
    assert bytes_for(buckets) <= MEMORY
    return buckets * SLOTS * CAPACITY_PERCENT // 100


def flood(network: Topology, flags: int, seed: int) -> Iterator[list[bytes]]:
    """Segments from addresses of nobody (RFC 2544's), in ROUNDS parts."""
    random = Random(seed)
    macs = parse_mac(network.balancer.links[0].mac), parse_mac(network.client.links[0].mac)
    for _ in range(ROUNDS):
        sources = [
            (bytes([198, 18 + random.getrandbits(1)]) + random.randbytes(2), 1024 + random.getrandbits(15))
            for _ in range(TIMES * capacity() // ROUNDS)
        ]
        yield [
            bytes(build_frame(Tuple5(src, sport, ip(network.vip), PORT, TCP), macs, flags))
            for src, sport in sources
        ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("build", [dsr, nat])
def test_a_flood_breaks_no_connection(build: Build, dataplane: str) -> None:
    with echo_network(build) as network, ExitStack() as stack:
        toml = network.config_toml(f"{PORT}/tcp", dataplane=dataplane, lb={"flow_memory": "256KiB"})
        with network.client.enter():
            wire = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            wire.bind((network.client.links[0].interface, 0))
        with running(network, toml) as balancer:
            held = open_connections(network, OPEN, stack)
            began = [connection.ask(TEXT) for connection in held]
            for flags in (tcp.SYN, tcp.ACK):
                for number, part in enumerate(flood(network, flags, seed=flags)):
                    for frame in part:
                        wire.send(frame)
                    for index in range(number, OPEN, ROUNDS):
                        assert held[index].ask(TEXT) == began[index]
            assert [connection.ask(TEXT) for connection in held] == began
            stack.close()
        full, strangers = balancer.verdict("drop_flows_full"), balancer.verdict("drop_no_flow")
        # What the kernel dropped in front of the balancer was no part of the flood.
        sent = 2 * TIMES * capacity() - int(balancer.counters["engine"]["receive_lost"])
        print(f"{sent} of the flood arrived: {full} found the table full, {strangers} no flow")
        assert full >= capacity()
        if build is nat:
            assert strangers + balancer.verdict("drop_overflow") >= capacity()
