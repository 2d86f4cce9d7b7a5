"""dsr-ipip and dsr-gue to backends whose kernel takes off what is in front: rows of test_matrix.py.

A tc program (decapsulate.bpf.c) asks the kernel for that, at each backend's
ingress. A capture there is before it, so it sees the outer packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from l4raw.netns import NO_CHECK, Log, Topology, dsr
from l4raw.netns.clients import many_requests
from l4raw.netns.servers import Server, nginx
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.cells import halved
from tests.integration.capture import capturing, checksums_are_right, wait_until_quiet
from tests.integration.napi import taking_redirected
from tests.integration.running import Running, running
from tests.integration.test_matrix import (
    ECHO,
    LEAST_BY_KERNEL,
    PIECES,
    REQUESTS,
    SERVICES,
    SIZE,
    by_kernel,
    move,
)
from tests.integration.tunnelled import compiled, decapsulate, widen
from tests.integration.udp_echo import serving, there_and_back

pytestmark = pytest.mark.root

PROTOCOLS = {4: 4, 6: 41}
"""Of a packet of this IP version inside of another one."""
each_cell = pytest.mark.parametrize(
    ("mode", "version", "dataplane"),
    halved(("dsr-ipip", "dsr-gue"), (4, 6), ("af_xdp", "raw", "xdp")),
    ids=lambda value: f"ipv{value}" if isinstance(value, int) else value,
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decapsulator, compiled."""
    return compiled(tmp_path_factory.mktemp("bpf"))


@contextmanager
def served(mode: str, version: int, program: Path) -> Iterator[tuple[Topology, list[Server]]]:
    """A two-arm network; its backends take packets out of tunnels. No host may see a wrong checksum in it."""
    with dsr(2, 2, version=version, log=Log(silent=True)) as built, ExitStack() as stack:
        network = replace(built, mode=mode)
        if (mode, version) == ("dsr-gue", 6):  # a UDP piece of this test and the headers are 1,508 bytes
            widen(network)
        for backend in network.backends:
            decapsulate(backend, program)
            stack.enter_context(serving(backend, network.vip, ECHO))
        servers = [stack.enter_context(nginx(backend)) for backend in network.backends]
        before = network.counters()
        yield network, servers
        assert network.counters() == before


@each_cell
def test_20_mb_each_way_and_the_tunnel_is_seen(
    mode: str, version: int, dataplane: str, program: Path
) -> None:
    with served(mode, version, program) as (network, servers), ExitStack() as stack:
        if dataplane == "xdp":
            stack.enter_context(taking_redirected(network))
        toml = network.config_toml(*SERVICES, dataplane=dataplane, check=NO_CHECK)
        with running(network, toml) as balancer:
            move(network, servers)
        assert balancer.dataplane == dataplane
        if dataplane == "xdp":
            assert by_kernel(balancer) >= LEAST_BY_KERNEL
        assert balancer.verdict("forward") > SIZE / 65_536 + SIZE / 1400
        assert balancer.verdict("reply") == 0
        look(network, toml)


def look(network: Topology, toml: str) -> None:
    """The same with few frames, all of them captured, and their checksums finished by who sends them."""
    for host in (network.client, *network.backends):
        for link in host.links:
            host.run(["ethtool", "-K", link.interface, "tx", "off"])
    with ExitStack() as taps:
        at_client = taps.enter_context(capturing(network.client, version=network.version))
        captures = [taps.enter_context(capturing(each, version=network.version)) for each in network.backends]
        with running(network, toml) as balancer:
            answers = many_requests(network.client, f"http://{network.vip_host}/", REQUESTS)
            for number in range(PIECES):
                there_and_back(network.client, network.vip, ECHO, 1000 + number)
            wait_until_quiet(network)
    assert answers.total() == REQUESTS and len(answers) == len(network.backends)
    there = [each for each in at_client.between(network.client.address, network.vip) if _carries(each)]
    assert balancer.lost == 0
    assert balancer.verdict("forward") == len(there) > 4 * REQUESTS + 2 * PIECES
    inner: list[IP | IPv6] = []
    for backend, capture in zip(network.backends, captures, strict=True):
        source = network.balancer.links[-1].addresses[0].partition("/")[0]
        outer = capture.between(source, backend.address)
        assert outer and {each.dst for each in outer} == {backend.mac}
        inner += [taken_out(each, network) for each in outer]
    agree(network, there, inner, balancer)


def _carries(frame: Ether) -> bool:
    return TCP in frame or UDP in frame


def taken_out(frame: Ether, network: Topology) -> IP | IPv6:
    """The packet inside of an outer one that is as its mode has it: what scapy finds, not what we say."""
    layer = IP if network.version == 4 else IPv6
    outer = frame[layer]
    protocol, left = (outer.proto, outer.ttl) if network.version == 4 else (outer.nh, outer.hlim)
    data, without_sum = bytes(outer.payload), UDP in outer and outer[UDP].chksum == 0
    assert left == 64 and (without_sum or checksums_are_right(Ether(bytes(frame))))
    if network.mode == "dsr-gue":
        assert protocol == 17 and outer[UDP].dport == 6080 and outer[UDP].sport >= 49152
        assert (outer[UDP].chksum == 0) == (network.version == 4)
        data = bytes(outer[UDP].payload)
        assert data[:4] == bytes([0, PROTOCOLS[network.version], 0, 0])
        data = data[4:]
    else:
        assert protocol == PROTOCOLS[network.version]
    return layer(data)


def agree(network: Topology, there: list[Ether], inner: list[IP | IPv6], balancer: Running) -> None:
    """Each of the client's packets came to a backend once, as it was, but for a TTL of one less."""
    layer = IP if network.version == 4 else IPv6
    assert len(inner) == len(there) == sum(balancer.backends("rx_packets").values())
    assert sum(map(len, there)) == sum(balancer.backends("rx_bytes").values())
    assert {(each.src, each.dst) for each in inner} == {(network.client.address, network.vip)}
    assert {each.ttl if network.version == 4 else each.hlim for each in inner} == {63}
    link = Ether(bytes(there[0])[:14])  # scapy would ask the network for a MAC address
    assert not [each for each in inner if not checksums_are_right(Ether(bytes(link) + bytes(each)))]
    bodies = sorted(bytes(each[layer].payload) for each in there)
    assert sorted(bytes(each.payload) for each in inner) == bodies
