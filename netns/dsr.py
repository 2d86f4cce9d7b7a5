"""The network for direct server return: backends own the VIP and answer the client themselves.

One arm: all on one segment.

    client           balancer         b1               b2               b3
    10.77.0.1        10.77.0.2        10.77.0.11       10.77.0.12       10.77.0.13
    eth0 ..:01       eth0 ..:02       eth0 ..:11       eth0 ..:12       eth0 ..:13
       |                |                |                |                |
    ===+================+================+================+================+===  br-clients
                                      lo: 10.77.0.100 (the VIP, not announced)

Two arms: requests pass the balancer, replies pass the router.

    client           balancer         router
    10.77.0.1        10.77.0.2        10.77.0.254
    eth0 ..:01       eth0 ..:02       eth0 ..:fe
       |                |                |
    ===+================+================+===  br-clients    10.77.0.0/24
                        |                |
                     eth1 ..:03       eth1 ..:ff
                     10.78.0.2        10.78.0.254
                        |                |
    ====================+================+==========+==========+==========+===  br-backends
                                                    |          |          |     10.78.0.0/24
                                                 b1 .11     b2 .12     b3 .13
                                                 lo: 10.77.0.100; default via 10.78.0.254

MAC addresses are 02:00:00:00:00:xx. All bridges live in the namespace `switch`.
Lives here: these two pictures. Must not live here: how hosts and cables are
made (topology.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .host import Link
from .process import Log
from .topology import (
    BALANCER_MAC,
    Builder,
    Topology,
    alone,
    backend_links,
    backend_names,
    check_arms,
    nodad,
)

VIP_UNANNOUNCED = {"net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.all.arp_announce": 2}
"""Do not answer ARP for an address of another interface (lo), and never ask in its name."""


@contextmanager
def dsr(
    arms: int = 1,
    backends: int = 3,
    *,
    ip_forward: bool = False,
    queues: int = 1,
    version: int = 4,
    log: Log | None = None,
) -> Iterator[Topology]:
    """Build the network, yield it, take it down.

    `ip_forward` switches the balancer's kernel to routing. `queues`: of each
    of the balancer's interfaces. `version` 6 has the same numbers after
    2001:db8:77:: and 2001:db8:78::, and no IPv4. `log` takes every command before it runs
    (default: printed on stderr). Raises ValueError for impossible numbers, NamespaceError without
    the right to make namespaces.
    """
    check_arms(arms)
    names = backend_names(backends)
    with ExitStack() as stack:
        build = Builder("dsr", stack, log, queues, version)
        routing = ["router"] * (arms == 2) + ["balancer"] * ip_forward
        edge = ["client", "balancer"] + ["router"] * (arms == 2)
        build.add_hosts("switch", *edge, *names, forwarding=routing)
        for name in names:
            build.hosts[name].sysctls(VIP_UNANNOUNCED)
        lay = _one_segment if arms == 1 else _two_segments
        lay(build, names)
        for name in names:
            build.hosts[name].ip(f"addr add {build.vip} dev lo{nodad(build.vip)}")
        yield build.finish("dsr-l2", ["eth0", "eth1"][:arms])


def _one_segment(build: Builder, names: list[str]) -> None:
    build.segment(
        "br-clients",
        {
            "client": Link("eth0", "02:00:00:00:00:01", (build.on_clients(1),)),
            "balancer": Link("eth0", BALANCER_MAC[0], (build.on_clients(2),)),
            **backend_links(names, build.on_clients),
        },
    )


def _two_segments(build: Builder, names: list[str]) -> None:
    build.segment(
        "br-clients",
        {
            "client": Link("eth0", "02:00:00:00:00:01", (build.on_clients(1),)),
            "balancer": Link("eth0", BALANCER_MAC[0], (build.on_clients(2),)),
            "router": Link("eth0", "02:00:00:00:00:fe", (build.on_clients(254),)),
        },
    )
    build.segment(
        "br-backends",
        {
            "balancer": Link("eth1", BALANCER_MAC[1], (build.on_backends(2),)),
            "router": Link("eth1", "02:00:00:00:00:ff", (build.on_backends(254),)),
            **backend_links(names, build.on_backends),
        },
    )
    build.hosts["client"].ip(f"route add {build.subnet} via {alone(build.on_clients(254))}")
    for name in names:
        build.hosts[name].ip(f"route add {build.everywhere} via {alone(build.on_backends(254))}")
