"""What a VIP or a SNAT address must not be: an address of this host, or of another one.

Lives here: which addresses a balancer claims, and the two refusals in words. Must not live here: finding out
(inspection.py, responder.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final

from l4raw.control.errors import L4Error
from l4raw.control.settings import Config
from l4raw.wire.ethernet import format_mac

VIP: Final = "VIP"
SNAT: Final = "SNAT address"
"""What a claimed address is, in words."""


def vips(config: Config) -> list[bytes]:
    """The addresses to answer for on the clients' arm, each once, in the order of the file."""
    return list(dict.fromkeys(service.vip for service in config.services))


def snat_addresses(config: Config) -> list[bytes]:
    """Those on the backends' arm, likewise."""
    return list(dict.fromkeys(each.address for service in config.services for each in service.snat))


def refuse_local(addresses: Iterable[bytes], local: Mapping[bytes, str], kind: str = VIP) -> None:
    """Raises L4R-202 for one that is an address of this host; `local` has each address's interface."""
    for address in addresses:
        if address in local:
            text, interface = str(ip_address(address)), local[address]
            raise L4Error(
                "L4R-202",
                what=f"the {kind} {text} is an address of this host",
                where=interface,
                why="the kernel would take what the backends answer for its own." if kind == SNAT else "",
                fix=f"ip address del {text} dev {interface} (with its prefix length),"
                f" or choose another {kind}",
            )


def owned(
    protocol: str, interface: str, vip: bytes, mac: bytes, owners: Mapping[bytes, str], kind: str = VIP
) -> L4Error:
    """L4R-201 for an address that the host with this MAC has; `owners` has names of backends by MAC."""
    text, where = str(ip_address(vip)), f"{interface}, {format_mac(mac)}"
    if mac not in owners or kind == SNAT:
        what = f"the {kind} {text} is owned by the host {format_mac(mac)}"
        if mac in owners:
            what += f", which is backend {owners[mac]} or the router to it"
        if kind == VIP:
            return L4Error("L4R-201", what=what, where=where)
        return L4Error(
            "L4R-201",
            what=what,
            where=where,
            why="two machines would answer for it, and backends would send some replies to the other one.",
            fix=f"choose another {kind}, one that nobody has",
        )
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
