"""What a VIP must not be: an address of this host, or of another one.

Lives here: the two refusals in words. Must not live here: finding out (inspection.py, responder.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from l4raw.control.errors import L4Error
from l4raw.wire.ethernet import format_mac


def refuse_local(vips: Iterable[bytes], local: Mapping[bytes, str]) -> None:
    """Raises L4R-202 for a VIP that is an address of this host; `local` has each address's interface."""
    for vip in vips:
        if vip in local:
            text, interface = str(ip_address(vip)), local[vip]
            raise L4Error(
                "L4R-202",
                what=f"the VIP {text} is an address of this host",
                where=interface,
                fix=f"ip address del {text} dev {interface} (with its prefix length), or choose another VIP",
            )


def owned(protocol: str, interface: str, vip: bytes, mac: bytes, owners: Mapping[bytes, str]) -> L4Error:
    """L4R-201 for a VIP that the host with this MAC has; `owners` has names of backends by MAC."""
    text, where = str(ip_address(vip)), f"{interface}, {format_mac(mac)}"
    if mac not in owners:
        return L4Error("L4R-201", what=f"the VIP {text} is owned by the host {format_mac(mac)}", where=where)
    return L4Error(
        "L4R-201",
        what=f"backend {owners[mac]} ({format_mac(mac)}) answers {protocol} for the VIP {text}",
        where=where,
        why="under DSR a backend owns the VIP but must not announce it: clients would bypass the balancer.",
        fix=f"on {owners[mac]}, with the VIP on lo:"
        " sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2"
        if len(vip) == 4
        else f"on {owners[mac]}: the VIP on lo only, with nodad, and not on the interface to the balancer",
    )
