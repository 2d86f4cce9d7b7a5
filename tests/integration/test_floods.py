"""A flood of SYNs or ACKs: no connection that transfers breaks, and new clients are accepted."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from random import Random

import pytest
from l4raw.netns import Topology, dsr, nat

from l4raw.core.room import buckets_in, bytes_for
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
BETWEEN = 60
"""Segments of it between a new client's SYN and its ACK; there is room for 163 half-open flows."""
DEADLINE_MS = 10_000


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


def accepted(network: Topology, meanwhile: Callable[[], None]) -> bool:
    """Whether a new client connects, with what is done after its SYN was sent, and has its line echoed."""
    with network.client.enter(), closing(socket.socket()) as new:
        new.setblocking(False)
        new.connect_ex((network.vip, PORT))
        meanwhile()
        waiting = select.poll()
        waiting.register(new, select.POLLOUT)
        waiting.poll(DEADLINE_MS)
        if new.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False
        new.settimeout(DEADLINE_MS / 1000)
        new.sendall(b"new\n")
        return new.makefile("rb").readline().endswith(b" new\n")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize(
    ("build", "scheduler"), [(dsr, "rr"), (dsr, "maglev"), (nat, "maglev")], ids=["dsr-rr", "dsr", "nat"]
)
def test_a_flood_breaks_no_connection(build: Build, scheduler: str, dataplane: str) -> None:
    """Under DSR a hash finds the backend without an entry too; with rr, who loses the entry is broken."""
    with echo_network(build) as network, ExitStack() as stack:
        toml = network.config_toml(
            f"{PORT}/tcp", dataplane=dataplane, scheduler=scheduler, lb={"flow_memory": "256KiB"}
        )
        with network.client.enter():
            wire = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            wire.bind((network.client.links[0].interface, 0))
        with running(network, toml) as balancer:
            held = open_connections(network, OPEN, stack)
            began = [connection.ask(TEXT) for connection in held]
            for flags in (tcp.SYN, tcp.ACK):
                for number, part in enumerate(flood(network, flags, seed=flags)):

                    def send(count: int, part: list[bytes] = part) -> None:
                        for frame in [part.pop() for _ in range(count)]:
                            wire.send(frame)

                    send(len(part) // 2)
                    assert accepted(network, lambda: send(BETWEEN)), f"part {number}"
                    send(len(part))
                    for index in range(number, OPEN, ROUNDS):
                        assert held[index].ask(TEXT) == began[index]
            assert [connection.ask(TEXT) for connection in held] == began
            stack.close()
        evicted, strangers = (
            balancer.counters["events"]["evicted_half_open"],
            balancer.verdict("drop_no_flow"),
        )
        # What the kernel dropped in front of the balancer was no part of the flood.
        sent = 2 * TIMES * capacity() - int(balancer.counters["engine"]["receive_lost"])
        print(f"{sent} of the flood arrived: {evicted} half-open flows made room, {strangers} had none")
        assert evicted >= capacity()
        assert balancer.verdict("drop_flows_full") == 0
        if build is nat or scheduler == "rr":
            assert strangers + balancer.verdict("drop_overflow") >= capacity()
