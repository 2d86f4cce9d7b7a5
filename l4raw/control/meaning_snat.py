"""What the SNAT pool of a service means: the rules of meaning.py that are about `snat`."""

from __future__ import annotations

from collections.abc import Iterator

from l4raw.control.draft import Draft, DraftService, DraftSnat
from l4raw.control.source import Finding
from l4raw.wire import abi

_IP = {4: "IPv4", 16: "IPv6"}


def check(draft: Draft) -> Iterator[Finding]:
    """All of them, for every service."""
    for service in draft.services:
        yield from _wanted(service)
        yield from _overlaps(service)
        yield from _versions(service)
    yield from _owned(draft)


def _wanted(service: DraftService) -> Iterator[Finding]:
    """fullnat needs a pool, and nothing else can have one."""
    if service.mode == "fullnat" and service.has_snat is False:
        yield Finding("L4R-150", (*service.loc, "mode"), f"{service.head}mode fullnat needs snat")
    if service.mode not in (None, "fullnat") and service.has_snat:
        what = f"{service.head}mode {service.mode} does not rewrite the source, so it has no snat"
        yield Finding("L4R-151", (*service.loc, "snat"), what, key=True)
    if len(service.snat) > abi.SNAT_RANGES:
        what = f"{service.head}snat has {len(service.snat)} ranges; at most {abi.SNAT_RANGES} are possible"
        yield Finding("L4R-107", (*service.loc, "snat"), what)


def _overlaps(service: DraftService) -> Iterator[Finding]:
    """A port that is in a pool twice is one port."""
    for place, again in enumerate(service.snat):
        for first in service.snat[:place]:
            if again.address is None or again.address != first.address or not (again.ports and first.ports):
                continue
            low, high = max(again.ports[0], first.ports[0]), min(again.ports[1], first.ports[1])
            if low <= high:
                what = f"{service.head}two ranges of snat have ports {low}-{high} of one address"
                yield Finding("L4R-153", (*again.loc, "address"), what, other=(*first.loc, "address"))
                break


def _versions(service: DraftService) -> Iterator[Finding]:
    """What a backend sees has one IP version: source and destination."""
    if service.vip is None:
        return
    for each in service.snat:
        if each.address is not None and len(each.address) != len(service.vip.address):
            mine, other = _IP[len(each.address)], _IP[len(service.vip.address)]
            what = f"{service.head}a SNAT address is {mine}, the VIP is {other}"
            yield Finding("L4R-154", (*each.loc, "address"), what, other=(*service.loc, "vip"))


def _owned(draft: Draft) -> Iterator[Finding]:
    """A SNAT address is nobody's: neither a VIP nor a backend's."""
    owners = {}
    for service in reversed(draft.services):
        for backend in reversed(service.backends):
            owners[backend.address] = f"the address of {backend.head[:-2]}", (*backend.loc, "address")
    for service in reversed(draft.services):
        if service.vip:
            owners[service.vip.address] = f"the VIP of {service.head[:-2]}", (*service.loc, "vip")
    for service in draft.services:
        for each in service.snat:
            yield from _of_another(service, each, owners)


def _of_another(
    service: DraftService, each: DraftSnat, owners: dict[bytes | None, tuple[str, tuple[str | int, ...]]]
) -> Iterator[Finding]:
    if each.address is not None and each.address in owners:
        text, other = owners[each.address]
        what = f"{service.head}a SNAT address is {text}"
        yield Finding("L4R-152", (*each.loc, "address"), what, other=other)
