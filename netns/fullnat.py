"""The network for fullnat: backends that cannot reach the client, and need not.

Two arms:

    client           balancer
    10.77.0.1        10.77.0.2
    eth0 ..:01       eth0 ..:02
       |                |
    ===+================+===  br-clients    10.77.0.0/24
                        |
                     eth1 ..:03
                     10.78.0.2
                        |
    ====================+================+================+================+===  br-backends
                                         |                |                |     10.78.0.0/24
                                      b1 10.78.0.11    b2 10.78.0.12    b3 10.78.0.13     no other route

Two arms, and the backends behind a router (`routed`):

                     eth1 ..:03       router
                     10.78.0.2        10.78.0.254    10.79.0.254
                        |             eth0 ..:04     eth1 ..:05
                        |                |              |
    ====================+================+===        ===+================+================+===  br-far
                                                                         |                |     10.79.0.0/24
                                                                      b1 10.79.0.11    b2 10.79.0.12
                                                                      10.78.0.0/24 via 10.79.0.254

One arm: all of them in 10.77.0.0/24, the clients' own segment.

The VIP, 10.77.0.100, and the SNAT address, .201 of the balancer's last
interface, are nobody's. Lives here: these pictures. Must not live here: how
hosts and cables are made (topology.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

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
)

SNAT = 201
"""The last number of the address."""
ROUTER_MAC = ("02:00:00:00:00:04", "02:00:00:00:00:05")


@contextmanager
def fullnat(
    arms: int = 2,
    backends: int = 3,
    *,
    ip_forward: bool = False,
    queues: int = 1,
    version: int = 4,
    routed: bool = False,
    log: Log | None = None,
) -> Iterator[Topology]:
    """Build the network, yield it, take it down.

    Arguments and errors are those of nat(); `routed` needs two arms.
    """
    check_arms(arms)
    if routed and arms == 1:
        raise ValueError("routed = True: backends behind a router need a second interface")
    names = backend_names(backends)
    with ExitStack() as stack:
        build = Builder("fullnat", stack, log, queues, version)
        routing = ["router"] * routed
        build.add_hosts(
            "switch",
            "client",
            "balancer",
            *routing,
            *names,
            forwarding=[*routing, *["balancer"] * ip_forward],
        )
        (_one_segment if arms == 1 else _two_segments)(build, names, routed)
        snat = alone((build.on_clients if arms == 1 else build.on_backends)(SNAT))
        yield replace(build.finish("fullnat", ["eth0", "eth1"][:arms]), snat=snat)


def _one_segment(build: Builder, names: list[str], routed: bool) -> None:
    ports = {
        "client": Link("eth0", "02:00:00:00:00:01", (build.on_clients(1),)),
        "balancer": Link("eth0", BALANCER_MAC[0], (build.on_clients(2),)),
    }
    build.segment("br-clients", {**ports, **backend_links(names, build.on_clients)})


def _two_segments(build: Builder, names: list[str], routed: bool) -> None:
    client = Link("eth0", "02:00:00:00:00:01", (build.on_clients(1),))
    outer = Link("eth0", BALANCER_MAC[0], (build.on_clients(2),))
    inner = Link("eth1", BALANCER_MAC[1], (build.on_backends(2),))
    build.segment("br-clients", {"client": client, "balancer": outer})
    if not routed:
        build.segment("br-backends", {"balancer": inner, **backend_links(names, build.on_backends)})
        return
    near, far = (
        Link(f"eth{n}", ROUTER_MAC[n], (on(254),)) for n, on in enumerate((build.on_backends, build.far))
    )
    build.segment("br-backends", {"balancer": inner, "router": near})
    build.segment("br-far", {"router": far, **backend_links(names, build.far)})
    build.hosts["balancer"].ip(f"route add {build.far_subnet} via {alone(build.on_backends(254))}")
    for name in names:
        build.hosts[name].ip(f"route add {build.subnet} via {alone(build.far(254))}")
