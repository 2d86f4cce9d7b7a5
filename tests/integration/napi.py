"""Have the balancer's veth peers take what an XDP program redirects to them.

Lives here: the two ways. GRO is what people switch on; it also merges segments,
so that a capture behind it shows other frames than the balancer has sent. An
XDP program that passes everything on merges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from l4raw.netns import Host, Topology

from l4raw.xdp import PassToSocket


def switch_of(network: Topology) -> Host:
    """Where the other ends of the balancer's cables are: `balancer-eth0` and so on."""
    return next(host for host in network.hosts if host.name == "switch")


def gro(network: Topology, state: str) -> None:
    """`on` or `off`, at each of the peers."""
    for interface in network.interfaces:
        switch_of(network).run(["ethtool", "-K", f"balancer-{interface}", "gro", state])


@contextmanager
def taking_redirected(network: Topology) -> Iterator[None]:
    """By a program, until the end."""
    with ExitStack() as stack, switch_of(network).enter():
        program = stack.enter_context(PassToSocket())
        for interface in network.interfaces:
            stack.enter_context(program.attach(f"balancer-{interface}"))
        yield
