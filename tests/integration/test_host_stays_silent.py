"""The balancer's kernel neither answers nor forwards what is for the VIP, also where it routes.

A raw socket gets a copy: the kernel has its own of every frame, and must not act on it.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest
from l4raw.netns import Host, Log, Topology, dsr, nat
from l4raw.netns.clients import curl, many_requests
from l4raw.netns.servers import nginx
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.l2 import Ether

from tests.integration.capture import capturing, kernel_counter, wait_until_quiet
from tests.integration.running import running

pytestmark = pytest.mark.root

Build = Callable[..., AbstractContextManager[Topology]]

CELLS = [(dsr, 1), (dsr, 2), (nat, 1), (nat, 2)]
each_cell = pytest.mark.parametrize(
    ("build", "arms"), CELLS, ids=[f"{build.__name__}-{arms}-arm" for build, arms in CELLS]
)
routing_or_not = pytest.mark.parametrize("ip_forward", [False, True], ids=["host", "router"])

REQUESTS = 200
CLOSED = 81
"""A port of the VIP that no service has."""
ANSWERS = [("Ip", "ForwDatagrams"), ("Icmp", "OutMsgs"), ("Tcp", "OutRsts")]


@contextmanager
def web_network(build: Build, arms: int, ip_forward: bool) -> Iterator[Topology]:
    """A network with nginx on each backend."""
    with build(arms, ip_forward=ip_forward, log=Log(silent=True)) as network, ExitStack() as stack:
        for backend in network.backends:
            stack.enter_context(nginx(backend))
        yield network


def acts(host: Host) -> dict[str, int]:
    """How often the kernel forwarded a packet, sent an ICMP message or reset a connection."""
    return {f"{group}.{name}": kernel_counter(host, group, name) for group, name in ANSWERS}


def same_but_for_hops(packet: Ether) -> bytes:
    """The packet without what a router on another way would have changed."""
    found = packet[IP].copy()
    found.ttl = found.chksum = 0
    return bytes(found)


@routing_or_not
@each_cell
def test_each_packet_reaches_the_client_once(build: Build, arms: int, ip_forward: bool) -> None:
    with web_network(build, arms, ip_forward) as network:
        before = acts(network.balancer)
        with capturing(network.client) as seen:
            with running(network, network.config_toml()) as balancer:
                answers = many_requests(network.client, f"http://{network.vip}/", REQUESTS)
                wait_until_quiet(network)
        assert answers.keys() == {"b1", "b2", "b3"}
        assert answers.total() == REQUESTS
        packets = seen.packets()
        assert not [packet for packet in packets if ICMP in packet]
        ends = {network.client.address, network.vip}
        assert {packet[IP].src for packet in packets} == ends, "a backend's own address reached the client"
        copies = Counter(map(same_but_for_hops, packets))
        assert max(copies.values()) == 1, copies.most_common(3)
        back = seen.between(network.vip, network.client.address)
        assert balancer.verdict("reply") == (len(back) if network.mode == "nat" else 0)
        assert acts(network.balancer) == before


@routing_or_not
def test_fragments_of_replies_leave_translated(ip_forward: bool) -> None:
    """Only the first one has ports: the kernel would route the others, from the backend's own address."""
    with nat(backends=1, ip_forward=ip_forward, log=Log(silent=True)) as network:
        backend = network.backends[0]
        with backend.enter():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with network.client.enter():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with server, client, capturing(network.client) as seen:
            server.bind((backend.address, 53))
            for sock in (server, client):
                sock.settimeout(5)
            with running(network, network.config_toml("53/udp")):
                client.sendto(b"?", (network.vip, 53))
                _, asker = server.recvfrom(100)
                server.sendto(b"x" * 4_000, asker)
                assert client.recv(5_000) == b"x" * 4_000
                # What the kernel routed too would arrive before this.
                server.sendto(b"small", asker)
                assert client.recv(100) == b"small"
        assert {packet[IP].src for packet in seen.packets() if IP in packet} == {
            network.client.address,
            network.vip,
        }


@routing_or_not
@each_cell
def test_nobody_answers_on_a_port_without_a_service(build: Build, arms: int, ip_forward: bool) -> None:
    with web_network(build, arms, ip_forward) as network:
        before = acts(network.balancer)
        with network.client.enter():
            asker = socket.socket()
        with capturing(network.client) as seen, asker:
            with running(network, network.config_toml()) as balancer:
                asker.setblocking(False)
                assert asker.connect_ex((network.vip, CLOSED)) == errno.EINPROGRESS
                # This goes the same way after the SYN: an answer to the SYN would be here before it is done.
                assert curl(network.client, f"http://{network.vip}/") in ("b1", "b2", "b3")
                # What comes when the balancer has gone is routed: a SYN again, a connection's last ACK.
                asker.close()
                wait_until_quiet(network)
        assert balancer.verdict("drop_no_service") >= 1
        asked = [p for p in seen.between(network.client.address, network.vip) if p[TCP].dport == CLOSED]
        assert asked, "the SYN was sent"
        assert not [p for p in seen.packets() if TCP in p and p[TCP].sport == CLOSED]
        assert not [p for p in seen.packets() if ICMP in p]
        assert acts(network.balancer) == before
