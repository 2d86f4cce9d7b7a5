"""Every mode, with both IP versions, both protocols, on every dataplane, offloads as veth has them.

Each cell moves 20 MB each way by TCP and by UDP. Then it is looked at, on the
wire and in the counters: what the backend sees as source and destination, how
far it is away, which way replies take.

A new mode is a line of MODES: its network, and what is seen of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import NamedTuple

import pytest
from l4raw.netns import NO_CHECK, Host, Log, Topology, dsr, fullnat, nat
from l4raw.netns.clients import download, make_file, many_requests, sha256, upload
from l4raw.netns.servers import Server, nginx
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether

from tests.cells import halved
from tests.integration.capture import Capture, capturing, checksums_are_right, wait_until_quiet
from tests.integration.napi import taking_redirected
from tests.integration.running import Running, running
from tests.integration.udp_echo import serving, there_and_back

pytestmark = pytest.mark.root

SIZE = 20_000_000
ECHO = 7000
REQUESTS, PIECES = 20, 20
LEAST_BY_KERNEL = 0.99
"""Of the frames that are sent while a few flows move much: the share that the kernel path sends."""
SERVICES = ("80/tcp", f"{ECHO}/udp")


class Seen(NamedTuple):
    """Of a client's frame, where it reaches a backend; and of the replies."""

    source: str
    destination: str
    hops_left: int
    """TTL or hop limit; the client sends 64."""
    replies_pass: bool
    """Through the balancer."""


class Mode(NamedTuple):
    """A row of the matrix."""

    build: Callable[..., AbstractContextManager[Topology]]
    seen: Callable[[Topology, Host], Seen]


MODES = {
    "dsr-l2": Mode(dsr, lambda net, backend: Seen(net.client.address, net.vip, 64, False)),
    "nat": Mode(nat, lambda net, backend: Seen(net.client.address, backend.address, 63, True)),
    "fullnat": Mode(fullnat, lambda net, backend: Seen(net.snat, backend.address, 63, True)),
}
each_cell = pytest.mark.parametrize(
    ("mode", "version", "dataplane"),
    halved(list(MODES), (4, 6), ("af_xdp", "raw", "xdp")),
    ids=lambda value: f"ipv{value}" if isinstance(value, int) else value,
)


@contextmanager
def served(mode: Mode, version: int) -> Iterator[tuple[Topology, list[Server]]]:
    """A network with nginx and a UDP server on each backend. No host may see a wrong checksum in it."""
    with mode.build(2, 2, version=version, log=Log(silent=True)) as network, ExitStack() as stack:
        servers = [stack.enter_context(nginx(backend)) for backend in network.backends]
        for backend in network.backends:
            stack.enter_context(serving(backend, mode.seen(network, backend).destination, ECHO))
        before = network.counters()
        yield network, servers
        assert network.counters() == before


@each_cell
def test_20_mb_each_way_and_the_mode_is_seen(mode: str, version: int, dataplane: str) -> None:
    with served(MODES[mode], version) as (network, servers), ExitStack() as stack:
        if dataplane == "xdp":
            stack.enter_context(taking_redirected(network))
        toml = network.config_toml(*SERVICES, dataplane=dataplane, check=NO_CHECK)
        with running(network, toml) as balancer:
            move(network, servers)
        assert balancer.dataplane == dataplane
        if dataplane == "xdp":
            assert by_kernel(balancer) >= LEAST_BY_KERNEL
        assert balancer.verdict("forward") > SIZE / 65_536 + SIZE / 1400
        assert (balancer.verdict("reply") > SIZE / 1400) == MODES[mode].seen(
            network, servers[0].host
        ).replies_pass
        look(network, MODES[mode], toml)


def by_kernel(balancer: Running) -> float:
    """Of the frames that were sent, the share that the kernel path has sent."""
    sent = balancer.verdict("forward") + balancer.verdict("reply")
    return int(balancer.counters["engine"]["kernel_forwarded"]) / sent


def move(network: Topology, servers: list[Server]) -> None:
    """20 MB to the VIP and from it, over TCP and over UDP; whole."""
    digest = make_file(servers[0].files / "big", SIZE)
    for server in servers[1:]:
        (server.files / "big").hardlink_to(servers[0].files / "big")
    got = download(network.client, f"http://{network.vip_host}/files/big")
    assert (got.sha256, got.size) == (digest, SIZE)
    upload(network.client, f"http://{network.vip_host}/upload/copy", servers[0].files / "big")
    assert [sha256(file) for server in servers for file in server.uploads.iterdir()] == [digest]
    told = there_and_back(network.client, network.vip, ECHO, SIZE)
    assert told["sent"] == told["received"] == told["returned"], told


def look(network: Topology, mode: Mode, toml: str) -> None:
    """The same with few frames, all of them captured, and their checksums finished by who sends them."""
    for host in (network.client, *network.backends):
        for link in host.links:
            host.run(["ethtool", "-K", link.interface, "tx", "off"])
    version = network.version
    with ExitStack() as taps:
        at_client = taps.enter_context(capturing(network.client, version=version))
        at_backends = [taps.enter_context(capturing(each, version=version)) for each in network.backends]
        with running(network, toml) as balancer:
            answers = many_requests(network.client, f"http://{network.vip_host}/", REQUESTS)
            for number in range(PIECES):  # from a port each
                there_and_back(network.client, network.vip, ECHO, 1000 + number)
            wait_until_quiet(network)
    assert answers.total() == REQUESTS
    assert answers.keys() == {backend.name for backend in network.backends}
    assert balancer.lost == 0
    agree_at_client(network, mode, at_client, balancer)
    agree_at_backends(network, mode, at_backends, balancer)


def carried(seen: Capture, source: str, destination: str) -> list[Ether]:
    """TCP and UDP from one address to another; neighbours ask for each other too."""
    return [packet for packet in seen.between(source, destination) if TCP in packet or UDP in packet]


def agree_at_client(network: Topology, mode: Mode, at_client: Capture, balancer: Running) -> None:
    """It speaks with the VIP alone, and gets replies from the balancer or from elsewhere."""
    replies_pass = mode.seen(network, network.backends[0]).replies_pass
    there = carried(at_client, network.client.address, network.vip)
    back = carried(at_client, network.vip, network.client.address)
    segments = [packet for packet in at_client.packets() if TCP in packet or UDP in packet]
    assert len(there) + len(back) == len(segments), "nobody else talks to the client"
    assert balancer.verdict("forward") == len(there) > 4 * REQUESTS + 2 * PIECES
    assert balancer.verdict("reply") == (len(back) if replies_pass else 0)
    assert {packet.dst for packet in there} == {network.balancer.mac}
    assert {packet.src == network.balancer.mac for packet in back} == {replies_pass}
    assert not [packet for packet in there + back if not checksums_are_right(packet)]
    assert not [packet for packet in at_client.packets() if ICMPv6DestUnreach in packet]


def agree_at_backends(network: Topology, mode: Mode, at_backends: list[Capture], balancer: Running) -> None:
    """Each gets what the mode makes of the client's frames, and answers whom it sees."""
    forwarded = replied = 0
    for backend, capture in zip(network.backends, at_backends, strict=True):
        seen = mode.seen(network, backend)
        arrived = carried(capture, seen.source, seen.destination)
        answered = carried(capture, seen.destination, seen.source)
        segments = [packet for packet in capture.packets() if TCP in packet or UDP in packet]
        assert len(arrived) + len(answered) == len(segments), "it sees no other addresses"
        assert {UDP in packet for packet in arrived} == {True, False}
        left = {packet[IPv6].hlim if IPv6 in packet else packet[IP].ttl for packet in arrived}
        assert left == {seen.hops_left}
        assert not [packet for packet in arrived if not checksums_are_right(packet)]
        forwarded += len(arrived)
        replied += len(answered)
    assert forwarded == balancer.verdict("forward")
    if mode.seen(network, network.backends[0]).replies_pass:
        assert replied == balancer.verdict("reply")
