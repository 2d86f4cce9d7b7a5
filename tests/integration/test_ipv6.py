"""IPv6 through every engine and mode: real servers, real neighbour discovery, captured frames as referees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from l4raw.netns import Log, Topology, dsr, nat
from l4raw.netns.clients import dns_lookup, download, make_file, many_requests, sha256, upload
from l4raw.netns.servers import Server, dnsmasq, nginx
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether

from tests.cells import halved
from tests.integration.capture import Capture, capturing, checksums_are_right, wait_until_quiet
from tests.integration.running import running

pytestmark = pytest.mark.root

Build = Callable[..., AbstractContextManager[Topology]]


def _cell(mode: Any, arms: int, dataplane: str, marks: Any) -> Any:
    name = f"{mode.__name__}-{arms}-arm-{dataplane}"
    return pytest.param(partial(mode, version=6), arms, dataplane, marks=marks, id=name)


each_cell = pytest.mark.parametrize(
    ("build", "arms", "dataplane"), halved((dsr, nat), (1, 2), ("raw", "af_xdp"), make=_cell)
)

SIZE = 20_000_000
REQUESTS = 60
SMALL = 300_000


@contextmanager
def web_network(build: Build, arms: int) -> Iterator[tuple[Topology, list[Server]]]:
    """A network with nginx and dnsmasq on each backend. No host may see a wrong checksum in it."""
    with build(arms, log=Log(silent=True)) as network, ExitStack() as stack:
        servers = [stack.enter_context(nginx(backend)) for backend in network.backends]
        for backend in network.backends:
            stack.enter_context(dnsmasq(backend))
        before = network.counters()
        yield network, servers
        assert network.counters() == before


@each_cell
def test_20_mb_arrive_unharmed_in_both_directions(build: Build, arms: int, dataplane: str) -> None:
    with web_network(build, arms) as (network, servers):
        digest = make_file(servers[0].files / "big", SIZE)
        for server in servers[1:]:
            (server.files / "big").hardlink_to(servers[0].files / "big")
        with running(network, network.config_toml(dataplane=dataplane)) as balancer:
            got = download(network.client, f"http://{network.vip_host}/files/big")
            assert (got.sha256, got.size) == (digest, SIZE)
            upload(network.client, f"http://{network.vip_host}/upload/copy", servers[0].files / "big")
        copies = [file for server in servers for file in server.uploads.iterdir()]
        assert [sha256(file) for file in copies] == [digest]
        assert balancer.verdict("forward") > SIZE / 65536


def carried(seen: Capture, source: str, destination: str) -> list[Ether]:
    """TCP and UDP; neighbours ask for each other too."""
    return [packet for packet in seen.between(source, destination) if TCP in packet or UDP in packet]


@each_cell
def test_the_mode_is_seen_on_the_wire_and_counters_agree(build: Build, arms: int, dataplane: str) -> None:
    with web_network(build, arms) as (network, _), ExitStack() as taps:
        # Who finishes the sums itself leaves none that nobody looks at.
        for host in (network.client, *network.backends):
            for link in host.links:
                host.run(["ethtool", "-K", link.interface, "tx", "off"])
        at_client = taps.enter_context(capturing(network.client, version=6))
        at_backends = [taps.enter_context(capturing(backend, version=6)) for backend in network.backends]
        toml = network.config_toml("80/tcp", "53/udp", dataplane=dataplane)
        with running(network, toml) as balancer:
            answers = many_requests(network.client, f"http://{network.vip_host}/", REQUESTS)
            for number in range(10):
                assert dns_lookup(network.client, network.vip, f"n{number}.test").startswith("192.0.2.")
            wait_until_quiet(network)
        taps.close()
        assert answers.keys() == {"b1", "b2", "b3"} and answers.total() == REQUESTS
        there = carried(at_client, network.client.address, network.vip)
        back = carried(at_client, network.vip, network.client.address)
        is_nat = network.mode == "nat"
        assert balancer.verdict("forward") == len(there)
        assert balancer.verdict("reply") == (len(back) if is_nat else 0)
        assert balancer.lost == 0
        owner = network.balancer.mac
        assert {packet.dst for packet in there} == {owner}
        assert (owner in {packet.src for packet in back}) == is_nat
        for backend, seen in zip(network.backends, at_backends, strict=True):
            wanted = backend.address if is_nat else network.vip
            arrived = carried(seen, network.client.address, wanted)
            assert arrived
            # A client is one hop from the balancer; only NAT routes.
            assert {packet[IPv6].hlim for packet in arrived} == ({63} if is_nat else {64})
            assert not [packet for packet in arrived if not checksums_are_right(packet)]
        assert not [packet for packet in there + back if not checksums_are_right(packet)]
        assert not [packet for packet in at_client.packets() if ICMPv6DestUnreach in packet]


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("build", [dsr, nat])
def test_a_client_asks_again_and_again_where_the_vip_is(build: Build, dataplane: str) -> None:
    """Multicast while it does not know, unicast to make sure (RFC 4861, section 7.3.3)."""
    with build(version=6, log=Log(silent=True)) as network, nginx(network.backends[0]):
        one = network.config_toml(dataplane=dataplane).replace('name = "b2"', 'weight = 0, name = "b2"')
        toml = one.replace('name = "b3"', 'weight = 0, name = "b3"')
        with running(network, toml):
            for _ in range(3):
                network.client.ip("neigh flush dev eth0")
                assert many_requests(network.client, f"http://{network.vip_host}/", 2) == {"b1": 2}
            # The kernel then has to ask at this MAC address before it uses it again.
            vip, mac = network.vip, network.balancer.mac
            network.client.ip(f"neigh change {vip} lladdr {mac} dev eth0 nud probe")
            shown = network.client.run(["ip", "-6", "neigh", "show", vip]).stdout
            assert mac in shown
            assert many_requests(network.client, f"http://{network.vip_host}/", 2) == {"b1": 2}


def test_a_vip_that_another_host_has_is_refused() -> None:
    with nat(version=6, log=Log(silent=True)) as network:
        network.client.ip(f"addr add {network.vip}/64 dev eth0 nodad")
        with pytest.raises(AssertionError, match="L4R-201"), running(network, network.config_toml()):
            pass
