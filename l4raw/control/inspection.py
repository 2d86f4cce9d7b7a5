"""What `up` looks at before it begins: whatever it can be refused for.

Lives here: looking. Must not live here: a change of anything, and what is
looked at again while it runs (watch.py).
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from typing import Final

from l4raw.control.errors import L4Error
from l4raw.control.guard import require_nft
from l4raw.control.neighbours import Neighbours, next_address
from l4raw.control.netlink import Interface, Netlink, require_up
from l4raw.control.responder import Responders
from l4raw.control.settings import Config
from l4raw.control.ssh import require_ssh_safe
from l4raw.control.tunnels import sources
from l4raw.control.vips import SNAT, VIP, refuse_local, snat_addresses, vips
from l4raw.core.next_hops import NextHops

RESOLVE_S: Final = 1.0
"""How long backends have to answer ARP at the start."""


def inspect(config: Config, accept_ssh_loss: bool = False) -> list[Interface]:
    """Look at the host and the segment, change nothing. Facts about the interfaces, clients' side first.

    Raises what `up` can be refused for before it has begun: L4R-302 and L4R-303 for an interface that
    is missing or down, L4R-203 for one that carries SSH, L4R-202 for a VIP or SNAT address that this host has
    and L4R-201 for one that another has, L4R-305 for a backend out of reach, L4R-206 for a host that
    forwards without nft, L4R-301 without the rights, L4R-307 without the memory, L4R-308 for a tunnel
    without a source.
    """
    with Netlink() as netlink:
        interfaces = netlink.interfaces(config.lb.interfaces)
        local = netlink.local_addresses()
        refuse_local(vips(config), local)
        refuse_local(snat_addresses(config), local, SNAT)
        for interface in interfaces:
            require_up(interface)
            # A raw socket only listens: what it hears still reaches the host.
            require_ssh_safe(interface.name, dataplane_takes_traffic=False, accept=accept_ssh_loss)
        for service in config.services:
            for backend in service.backends:
                next_address(netlink, interfaces[-1], backend, service.mode)
        sources(netlink, config.services)
        netlink.require_admin()
    require_nft(config.lb.interfaces, config.services)
    _require_memory(config.lb.flow_memory)
    for interface, addresses, kind in (
        (interfaces[0], vips(config), VIP),
        (interfaces[-1], snat_addresses(config), SNAT),
    ):
        with contextlib.closing(Responders(interface, addresses, kind=kind)) as responder:
            responder.probe(lambda: _owners(config, interfaces))
    return interfaces


def _owners(config: Config, interfaces: Sequence[Interface]) -> dict[bytes, str]:
    """The MACs of the backends that answer within a second, with their names."""
    neighbours = Neighbours(NextHops(), interfaces, config.services)
    with contextlib.closing(neighbours):
        neighbours.start()
        neighbours.wait_resolved(RESOLVE_S)
        return neighbours.owners()


def _require_memory(size: int) -> None:
    try:
        mmap.mmap(-1, size).close()
    except (OSError, OverflowError) as error:
        raise L4Error("L4R-307", what=f"no {size >> 20} MiB for the flow table", where="[lb]") from error
