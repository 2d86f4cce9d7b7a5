"""The network for NAT: backends in a subnet of their own, whose only way out is the balancer.

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
                                      b1 10.78.0.11    b2 10.78.0.12    b3 10.78.0.13
                                      default via 10.78.0.2

One arm: both subnets on one segment, and both addresses on the balancer's eth0.

    client           balancer         b1               b2               b3
    10.77.0.1        10.77.0.2        10.78.0.11       10.78.0.12       10.78.0.13
                     10.78.0.2        default via 10.78.0.2
    eth0 ..:01       eth0 ..:02       eth0 ..:11       eth0 ..:12       eth0 ..:13
       |                |                |                |                |
    ===+================+================+================+================+===  br-clients

The VIP, 10.77.0.100, is nobody's address. The client has no route to the
backends. MAC addresses are 02:00:00:00:00:xx. All bridges live in the namespace
`switch`. Lives here: these two pictures. Must not live here: how hosts and
cables are made (topology.py).
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
)


@contextmanager
def nat(
    arms: int = 2,
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
        build = Builder("nat", stack, log, queues, version)
        client = Link("eth0", "02:00:00:00:00:01", (build.on_clients(1),))
        build.add_hosts("switch", "client", "balancer", *names, forwarding=["balancer"] * ip_forward)
        if arms == 1:
            both = Link("eth0", BALANCER_MAC[0], (build.on_clients(2), build.on_backends(2)))
            ports = {"client": client, "balancer": both}
            build.segment("br-clients", {**ports, **backend_links(names, build.on_backends)})
        else:
            outer = Link("eth0", BALANCER_MAC[0], (build.on_clients(2),))
            inner = Link("eth1", BALANCER_MAC[1], (build.on_backends(2),))
            build.segment("br-clients", {"client": client, "balancer": outer})
            build.segment("br-backends", {"balancer": inner, **backend_links(names, build.on_backends)})
        for name in names:
            build.hosts[name].ip(f"route add {build.everywhere} via {alone(build.on_backends(2))}")
        yield build.finish("nat", ["eth0", "eth1"][:arms])
