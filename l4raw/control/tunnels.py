"""Where a tunnel's packets come from, if the configuration does not say.

Lives here: one question to the kernel for each backend, before anything is
changed and again at the start. What the headers are is in core/tunnel.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from l4raw.control.errors import L4Error
from l4raw.control.netlink import Netlink
from l4raw.core.model import Service


def sources(netlink: Netlink, services: Iterable[Service]) -> dict[bytes, bytes]:
    """By address of the backend, where the service names no source: the one that the kernel would send from.

    As `ip route get` has it: RFC 6724, or the route's own `src`. So what a router or the backend reports of
    a packet (RFC 2003, section 4) reaches this host. Raises L4R-308 where the kernel has none.
    """
    found = {}
    for service in services:
        if not service.mode.is_tunnel or service.tunnel.source is not None:
            continue
        for backend in service.backends:
            route = netlink.route(backend.address)
            if route is None or route.source is None:
                address = ip_address(backend.address)
                raise L4Error(
                    "L4R-308",
                    what=f"no IPv{address.version} address to send to backend {backend.name} from",
                    where=f'service "{service.name}", backend {backend.name}, {address}',
                )
            found[backend.address] = route.source
    return found
