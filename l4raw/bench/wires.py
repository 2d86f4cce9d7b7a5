"""The networks of the benchmark: client, balancer and backend, wired by veth pairs without a bridge.

    client            balancer            b1
    10.77.0.1      10.77.0.2  10.78.0.2   10.78.0.11
    eth0 ..:01 --- eth0 ..:02 eth1 ..:03 --- eth0 ..:11

A bridge would take most of the time: it makes an skb of every live frame, and XDP a page of every skb.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from l4raw.core.model import Mode
from l4raw.netns import Host, Log, Topology
from l4raw.netns.host import Link
from l4raw.netns.topology import BALANCER_MAC

CLIENT = Link("eth0", "02:00:00:00:00:01", ("10.77.0.1/24",))
OUTER = Link("eth0", BALANCER_MAC[0], ("10.77.0.2/24",))
INNER = Link("eth1", BALANCER_MAC[1], ("10.78.0.2/24",))
BACKENDS = tuple(f"10.78.0.{number}" for number in range(11, 15))
"""The backend's addresses: under fullnat each has ports of its own."""
BACKEND = Link("eth0", "02:00:00:00:00:11", tuple(f"{address}/24" for address in BACKENDS))
SNATS = tuple(f"10.78.0.{number}" for number in range(201, 209))
"""fullnat: nobody's. With four backends, ports for two million flows."""


@contextmanager
def wires(mode: Mode = Mode.DSR_L2) -> Iterator[Topology]:
    """Build it, yield it, take it down. The backend has the sink, which answers if it is told to."""
    begin = time.monotonic()
    with _hosts("client", "balancer", "b1") as (client, balancer, backend):
        _wire(client, CLIENT, balancer, OUTER)
        _wire(balancer, INNER, backend, BACKEND)
        yield _topology("wires", mode, [client, balancer, backend], begin)


@contextmanager
def one_wire(mode: Mode = Mode.DSR_L2) -> Iterator[Topology]:
    """Client and balancer alone: what the balancer sends goes back to the client, who is the backend too."""
    begin = time.monotonic()
    with _hosts("client", "balancer") as (client, balancer):
        _wire(client, CLIENT, balancer, OUTER)
        yield _topology("one-wire", mode, [client, balancer], begin)


@contextmanager
def _hosts(*names: str) -> Iterator[list[Host]]:
    """They start side by side."""
    with ExitStack() as stack:
        hosts = [Host(name, Log(silent=True)) for name in names]
        for host in hosts:
            stack.callback(host.close)
        for host in hosts:
            host.wait_ready().sysctl("net.ipv6.conf.all.disable_ipv6", 1)
        yield hosts


def _topology(name: str, mode: Mode, hosts: list[Host], begin: float) -> Topology:
    """The backend is the last one, or the client."""
    client, balancer, *backends = hosts
    return Topology(
        name=name,
        mode=mode,
        client=client,
        balancer=balancer,
        backends=backends or [client],
        interfaces=[link.interface for link in balancer.links],
        hosts=hosts,
        build_seconds=time.monotonic() - begin,
    )


def _wire(host: Host, link: Link, peer: Host, peer_link: Link) -> None:
    """One RX and one TX queue on each end, which is veth's default."""
    far = f"peer name {peer_link.interface} address {peer_link.mac} netns {peer.pid}"
    host.ip(f"link add {link.interface} address {link.mac} type veth {far}")
    for each, its in ((host, link), (peer, peer_link)):
        each.links.append(its)
        each.ip(
            *(f"addr add {address} dev {its.interface}" for address in its.addresses),
            f"link set {its.interface} up",
        )
