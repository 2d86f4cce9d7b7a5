"""IPv6 extension headers in what a NAT backend sends: kernel sockets, and the redirect program alone.

client                  balancer                            b1
2001:db8:77::1 --- eth0 ...:77::2, 2001:db8:78::2 eth1 --- 2001:db8:78::11
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest
from l4raw.netns import NO_CHECK, Host, Log, Topology, nat
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from l4raw.engine.afxdp import AfXdpEngine
from l4raw.wire.ipv6 import AH, DESTINATION, FRAGMENT, HOP_BY_HOP, ICMPV6, MOST_EXTENSIONS, ROUTING
from tests.integration.in_process import balancer_in_this_process
from tests.integration.running import running

pytestmark = pytest.mark.root

DEADLINE = 10.0
PORT, CLOSED = 7000, 7001
UDP_HEADER, PASS, REDIRECTED = 17, 2, 4  # RFC 768; enum xdp_action
PADDED = bytes((0, 0, 1, 4, 0, 0, 0, 0))
"""A header with one option, PadN: RFC 8200, section 4.2. The kernel fills in what follows it."""
HOPS = (socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, PADDED)
OPTIONS = (socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, PADDED)
LARGE = 4000


class Talk(NamedTuple):
    """Sockets of a client that has asked, and of the backend that answers."""

    network: Topology
    client: socket.socket
    server: socket.socket

    def asked(self, body: bytes) -> tuple[str, int]:
        """Ask; where the answer has to go. Again until the backend's MAC address is known."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            self.client.send(body)
            with suppress(TimeoutError):
                data, sender = self.server.recvfrom(100)
                if data == body:
                    return str(sender[0]), int(sender[1])
        raise AssertionError(f"nothing came within {DEADLINE:g} s")

    def quoted(self) -> Raw:
        """As a router behind the balancer would quote the client's packet."""
        client, backend = self.network.client.address, self.network.backends[0].address
        datagram = UDP(sport=self.client.getsockname()[1], dport=PORT) / Raw(b"there")
        return Raw(bytes(IPv6(src=client, dst=backend, hlim=60) / datagram))


def udp(host: Host, bind: int = 0) -> socket.socket:
    with host.enter():
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    if bind:
        made.bind((host.address, bind))
    return made


@pytest.fixture
def talk() -> Iterator[Talk]:
    with (
        nat(2, 1, version=6, log=Log(silent=True)) as network,
        udp(network.client) as client,
        udp(network.backends[0], PORT) as server,
    ):
        client.settimeout(DEADLINE)
        client.connect((network.vip, PORT))
        server.settimeout(1)
        yield Talk(network, client, server)


def configured(network: Topology, dataplane: str) -> str:
    return network.config_toml(f"{PORT}/udp", f"{CLOSED}/udp", dataplane=dataplane, check=NO_CHECK)


each_dataplane = pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])


@each_dataplane
def test_answers_with_extension_headers_arrive(talk: Talk, dataplane: str) -> None:
    """Whole, and in fragments, whose hop-by-hop header comes first: RFC 8200, section 4.1."""
    with running(talk.network, configured(talk.network, dataplane)) as balancer:
        where = talk.asked(b"first")
        for size, options in product((1, LARGE), ([], [HOPS], [OPTIONS], [HOPS, OPTIONS])):
            talk.server.sendmsg([b"x" * size], options, 0, where)
            assert talk.client.recv(LARGE) == b"x" * size, (size, options)
    assert balancer.verdict("reply") == 4 * 1 + 4 * 3


@each_dataplane
def test_errors_with_extension_headers_reach_the_client(talk: Talk, dataplane: str) -> None:
    """Port unreachable: the kernel's, which quotes such headers, and one that has some itself."""
    network, backend = talk.network, talk.network.backends[0]
    with (
        running(network, configured(network, dataplane)) as balancer,
        udp(network.client) as refused,
        backend.enter(),
        socket.socket(socket.AF_INET6, socket.SOCK_RAW, ICMPV6) as router,
    ):
        where = talk.asked(b"first")
        refused.settimeout(DEADLINE)
        refused.connect((network.vip, CLOSED))
        refused.setsockopt(*HOPS)
        refused.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            refused.recv(1)
        router.bind((backend.address, 0))
        error = struct.pack("!BBHI", 1, 4, 0, 0) + bytes(talk.quoted())
        router.sendmsg([error], [HOPS, OPTIONS], 0, (where[0], 0))
        with pytest.raises(ConnectionRefusedError):
            talk.client.recv(1)
    assert balancer.verdict("icmp_error") == 2


def chain(kinds: list[int], last: int, *, length: int = 0, word: int = 0) -> tuple[int, bytes]:
    """The number of the first header, and all; `length` (in units of 8 bytes) and bytes 2, 3 of the last."""
    first, *following = [*kinds, last]
    made = [struct.pack("!BBHI", each, 0, 0, 0) for each in following]
    if made:
        made[-1] = struct.pack("!BBHI", last, length, word, 0) + bytes(length * 8)
    return first, b"".join(made)


class Packets(NamedTuple):
    """What b1 may send, by hand."""

    client: str
    backend: str
    port: int
    """The client's."""

    def reply(self, *kinds: int, source: str = "", port: int = PORT, **last: int) -> bytes:
        first, headers = chain(list(kinds), UDP_HEADER, **last)
        return self._packet(source or self.backend, first, headers + self._ports(port, self.port))

    def quote(self, *kinds: int, **last: int) -> bytes:
        """The client's packet, as b1 saw it."""
        first, headers = chain(list(kinds), UDP_HEADER, **last)
        body = headers + self._ports(self.port, PORT)
        return bytes(IPv6(src=self.client, dst=self.backend, nh=first) / Raw(body))

    def error(self, quote: bytes, *kinds: int) -> bytes:
        first, headers = chain(list(kinds), ICMPV6)
        return self._packet(self.backend, first, headers + struct.pack("!BBHI", 1, 4, 0, 0) + quote)

    def _packet(self, source: str, first: int, body: bytes) -> bytes:
        return bytes(IPv6(src=source, dst=self.client, nh=first) / Raw(body))

    @staticmethod
    def _ports(source: int, destination: int) -> bytes:
        return struct.pack("!HHHH", source, destination, 12, 0) + b"data"


def ours(packets: Packets) -> dict[str, bytes]:
    """What the balancer has to see: each is of the flow."""
    reply, quote, error = packets.reply, packets.quote, packets.error
    most = [DESTINATION] * MOST_EXTENSIONS
    return {
        "no extension header": reply(),
        **{f"header {kind}": reply(kind) for kind in (HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION)},
        "as many as are parsed": reply(*most),
        "a longer one": reply(HOP_BY_HOP, DESTINATION, length=5),
        "a first fragment": reply(HOP_BY_HOP, FRAGMENT, word=1),
        "a later fragment": reply(HOP_BY_HOP, FRAGMENT, word=1400),
        "an error": error(quote()),
        "an error behind one": error(quote(), DESTINATION),
        "an error that quotes one": error(quote(HOP_BY_HOP)),
        "an error behind as many, that quotes as many": error(quote(*most), *most),
        "an error that quotes a first fragment": error(quote(HOP_BY_HOP, FRAGMENT, word=1)),
    }


def not_ours(packets: Packets) -> dict[str, bytes]:
    """What is the kernel's. The parser reads no ports in it, or other ones."""
    reply, quote, error = packets.reply, packets.quote, packets.error
    too_many = [DESTINATION] * (MOST_EXTENSIONS + 1)
    return {
        "another port": reply(HOP_BY_HOP, port=PORT + 2),
        "one too many": reply(*too_many),
        "one that is longer than the packet": reply(HOP_BY_HOP, DESTINATION, length=5)[:-60],
        "a routing header with segments left": reply(ROUTING, word=1),
        "one that ends too soon": reply(HOP_BY_HOP)[:46],
        "a later fragment of a stranger": reply(HOP_BY_HOP, FRAGMENT, word=1400, source="2001:db8:78::99"),
        "an error that quotes one too many": error(quote(*too_many)),
        "an error that quotes a later fragment": error(quote(FRAGMENT, word=1400)),
        "an error that quotes one behind another header": error(quote(HOP_BY_HOP, FRAGMENT, word=1400)),
        "an error that quotes half of one": error(quote(HOP_BY_HOP)[:46]),
    }


@pytest.mark.xdp
def test_the_redirect_program_reads_as_far_as_the_parser(tmp_path: Path) -> None:
    with (
        nat(1, 1, version=6, log=Log(silent=True)) as network,
        udp(network.client) as client,
        udp(network.backends[0], PORT) as server,
        balancer_in_this_process(network, configured(network, "af_xdp"), tmp_path) as balancer,
    ):
        client.connect((network.vip, PORT))
        server.settimeout(1)
        _, port = Talk(network, client, server).asked(b"first")
        assert isinstance(balancer.engine, AfXdpEngine)
        program = balancer.engine.redirect._program
        macs = Ether(src=network.backends[0].mac, dst=network.balancer.mac, type=0x86DD)
        packets = Packets(network.client.address, network.backends[0].address, port)
        wanted = dict.fromkeys(ours(packets), REDIRECTED) | dict.fromkeys(not_ours(packets), PASS)
        frames = ours(packets) | not_ours(packets)
        assert {name: program.run(bytes(macs) + frame).action for name, frame in frames.items()} == wanted
