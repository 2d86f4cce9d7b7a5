"""fullnat among real hosts: its ports, its addresses on the backends' segment, and backends elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from l4raw.netns import CommandError, Host, Log, Topology, fullnat
from l4raw.netns.clients import curl, many_requests
from l4raw.netns.servers import nginx
from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import ICMPv6DestUnreach

from tests.integration.capture import capturing
from tests.integration.running import running

pytestmark = pytest.mark.root

PLANES = ("af_xdp", "raw")
each_plane = pytest.mark.parametrize("dataplane", PLANES)
each_version = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
POOL = 16


@contextmanager
def served(arms: int = 2, backends: int = 2, *, version: int = 4, routed: bool = False) -> Iterator[Topology]:
    """A network with nginx on each backend. No host may see a wrong checksum in it."""
    with ExitStack() as stack:
        network = stack.enter_context(
            fullnat(arms, backends, version=version, routed=routed, log=Log(silent=True))
        )
        for backend in network.backends:
            stack.enter_context(nginx(backend))
        before = network.counters()
        yield network
        assert network.counters() == before


@contextmanager
def connections(host: Host, address: str, port: int, count: int) -> Iterator[None]:
    """So many at once, all of them open."""
    with ExitStack() as stack:
        with host.enter():
            made = [socket.create_connection((address, port), timeout=5) for _ in range(count)]
        for each in made:
            stack.enter_context(each)
        yield


@each_plane
@each_version
def test_16_ports_take_16_connections_to_a_backend(version: int, dataplane: str) -> None:
    """The 17th is refused and counted, `up` names the pool, and another backend still works."""
    with served(version=version) as network:
        one, other = (
            network.config_toml(f"{port}/tcp", dataplane=dataplane, weights=weights, snat_ports="5000-5015")
            for port, weights in ((80, (1, 0)), (8080, (0, 1)))
        )
        service = other[other.index("[[service]]") :]
        with nginx(network.backends[1], 8080), running(network, one + "\n" + service) as balancer:
            with connections(network.client, network.vip, 80, POOL):
                with pytest.raises(CommandError, match="exit code 28"):
                    curl(network.client, f"http://{network.vip_host}/", timeout=2.5)
                assert many_requests(network.client, f"http://{network.vip_host}:8080/", POOL) == {"b2": POOL}
        assert balancer.verdict("drop_snat_exhausted") >= 2
        told = [event for event in balancer.events if event["event"] == "snat_exhausted"]
        assert told
        assert {event["pool"] for event in told} == {f"{address(network)}:5000-5015"}
        assert {event["backend"] for event in told} == {"b1"}
        assert sum(event["refused"] for event in told) == balancer.verdict("drop_snat_exhausted")


def address(network: Topology) -> str:
    """The SNAT address, as it stands before a port."""
    return f"[{network.snat}]" if network.version == 6 else network.snat


@each_plane
@each_version
@pytest.mark.parametrize("arms", [1, 2])
def test_backends_answer_the_snat_address_and_find_it(arms: int, version: int, dataplane: str) -> None:
    """Who has it is asked on their side and answered there; its owner is silent about all else."""
    with served(arms, version=version) as network:
        backend = network.backends[0]
        inner = network.balancer.links[-1]
        with running(network, network.config_toml(dataplane=dataplane)):
            assert len(many_requests(network.client, f"http://{network.vip_host}/", 20)) == 2
            for _ in range(2):
                backend.ip("neigh flush dev eth0")
                # Ten of them all go to the other one once in a thousand times.
                asked = (many_requests(network.client, f"http://{network.vip_host}/", 10) for _ in range(5))
                assert any(backend.name in each for each in asked)
                shown = backend.run(["ip", "neigh", "show", network.snat]).stdout
                assert inner.mac in shown
            with capturing(backend, version=version) as seen:
                with backend.enter():
                    probe = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
                with probe:
                    probe.settimeout(0.5)
                    with pytest.raises(TimeoutError):
                        probe.connect((network.snat, 80))
        silent = [p for p in seen.between(network.snat, backend.address) if TCP in p or ICMP in p]
        assert not silent
        assert not [packet for packet in seen.packets() if ICMPv6DestUnreach in packet]


@each_plane
@each_version
def test_backends_may_be_behind_a_router(version: int, dataplane: str) -> None:
    """Which knows the SNAT address's network and nothing of the clients."""
    with served(version=version, routed=True) as network:
        with running(network, network.config_toml(dataplane=dataplane)) as balancer:
            answers = many_requests(network.client, f"http://{network.vip_host}/", 40)
        assert answers.keys() == {"b1", "b2"}
        assert answers.total() == 40
        assert balancer.lost == 0


@each_version
@pytest.mark.parametrize("owner", ["backend", "balancer"])
def test_a_snat_address_that_a_host_has_is_refused(owner: str, version: int) -> None:
    code = {"backend": "L4R-201", "balancer": "L4R-202"}[owner]
    with fullnat(version=version, log=Log(silent=True)) as network:
        host = network.balancer if owner == "balancer" else network.backends[0]
        length, nodad = (24, "") if version == 4 else (64, " nodad")
        host.ip(f"addr add {network.snat}/{length} dev {host.links[-1].interface}{nodad}")
        with (
            pytest.raises(AssertionError, match=f"{code}.*the SNAT address {network.snat}"),
            running(network, network.config_toml()),
        ):
            pass


@each_plane
def test_a_kernel_that_forwards_does_not_meet_the_replies(dataplane: str) -> None:
    """They go to an address of nobody's: it would send them back, or say that nobody has it."""
    with fullnat(ip_forward=True, log=Log(silent=True)) as network, ExitStack() as stack:
        for backend in network.backends:
            stack.enter_context(nginx(backend))
        with running(network, network.config_toml(dataplane=dataplane)):
            with capturing(network.backends[0]) as seen:
                assert many_requests(network.client, f"http://{network.vip}/", 20).total() == 20
        assert not [packet for packet in seen.packets() if ICMP in packet]
