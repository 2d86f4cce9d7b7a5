"""Rules about `tunnel`: as in meaning.py, which asks them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from l4raw.control import values
from l4raw.control.draft import Draft, DraftService
from l4raw.control.source import Finding
from l4raw.control.toml_lines import Loc

TUNNELS = ("dsr-ipip", "dsr-gue")
OF = {4: "IPv4", 16: "IPv6"}
"""By the bytes of an address."""


def tunnel(draft: Draft, service: DraftService) -> Iterator[Finding]:
    """Settings that the mode can honour, and a source that packets can come from."""
    loc = *service.loc, "tunnel"
    written = draft.get(loc, {})
    if service.mode is None or written is None:
        return
    if service.mode not in TUNNELS:
        if written:
            what = f"{service.head}{service.mode} sends through no tunnel"
            yield Finding("L4R-144", loc, what, key=True)
        return
    if service.mode == "dsr-ipip" and "port" in written:
        what = f"{service.head}dsr-ipip has no port: there is no UDP header"
        yield Finding("L4R-144", (*loc, "port"), what, key=True)
    source = draft.get((*loc, "source"))
    if source is not None:
        yield from _source(service, draft.services, (*loc, "source"), values.address(source))


def _source(
    service: DraftService, services: list[DraftService], loc: Loc, source: bytes
) -> Iterator[Finding]:
    """One finding at most."""
    said = f"{service.head}the tunnel's source {ip_address(source)}"
    for other in services:
        if other.vip and other.vip.address == source:
            what = f"{said} is the VIP of {other.head[:-2]}"
            yield Finding("L4R-145", loc, what, other=(*other.loc, "vip"))
            return
    for backend in service.backends:
        if backend.address is None:
            continue
        what, at = "", (*backend.loc, "address")
        if backend.address == source:
            what = f"{said} is the address of {backend.head[len(service.head) : -2]}"
        elif len(backend.address) != len(source):
            name, version = backend.head[len(service.head) : -2], OF[len(backend.address)]
            what = f"{said} is {OF[len(source)]}, the address of {name} is {version}"
        if what:
            yield Finding("L4R-145", loc, what, other=at)
            return
