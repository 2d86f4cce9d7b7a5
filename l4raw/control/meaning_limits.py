"""What limits, `full` and `flows` of a service mean beside its other keys: rules of meaning.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from l4raw.control import values
from l4raw.control.draft import Draft, DraftService
from l4raw.control.source import Finding

PREFIXES: Final = 4096
"""Of one service; a look-up takes 13 steps then."""
_OF: Final = {4: "IPv4", 16: "IPv6"}
_NO_HASH: Final = ("rr", "wrr", "lc", "wlc")
"""Schedulers that cannot find a flow's backend again."""


def check(draft: Draft, service: DraftService) -> Iterator[Finding]:
    """Everything about one service's limits that does not make sense."""
    yield from _mss(draft, service)
    yield from _acl(draft, service)
    yield from _of_clients(draft, service)
    yield from _stateless(draft, service)
    yield from _changes(draft, service)


def _mss(draft: Draft, service: DraftService) -> Iterator[Finding]:
    loc = (*service.loc, "mss_clamp")
    if draft.get(loc) and service.vip and service.vip.protocol != values.PROTOCOLS["tcp"]:
        what = f"{service.head}mss_clamp is there, but udp has no MSS"
        yield Finding("L4R-161", loc, what, other=(*service.loc, "vip"), key=True)


def _acl(draft: Draft, service: DraftService) -> Iterator[Finding]:
    first: dict[tuple[bytes, int], Any] = {}
    count = 0
    for name in ("allow", "deny"):
        loc = (*service.loc, "acl", name)
        listed = draft.get(loc, ())
        if listed == [] and name == "allow":
            yield Finding("L4R-167", loc, f"{service.head}acl: {name} is empty")
        for index in range(len(listed) if isinstance(listed, list) else 0):
            text, here = draft.get((*loc, index)), (*loc, index)
            if text is None:
                continue
            count += 1
            prefix = values.prefix(text)
            if service.vip and len(prefix[0]) != len(service.vip.address):
                what = f'{service.head}acl has "{text}", which is {_OF[len(prefix[0])]};'
                what += f" the VIP is {_OF[len(service.vip.address)]}"
                yield Finding("L4R-162", here, what, other=(*service.loc, "vip"))
            elif prefix in first:
                what = f'{service.head}acl has "{text}" twice'
                yield Finding("L4R-163", here, what, other=first[prefix])
            first.setdefault(prefix, here)
    if count > PREFIXES:
        what = f"{service.head}acl has {count} networks; at most {PREFIXES} are possible"
        yield Finding("L4R-107", (*service.loc, "acl"), what)


def _of_clients(draft: Draft, service: DraftService) -> Iterator[Finding]:
    for name in ("flows", "new_per_s"):
        loc = (*service.loc, "limits")
        of_all, of_one = draft.get((*loc, name), 0), draft.get((*loc, f"client_{name}"), 0)
        if of_all and of_one and of_one > of_all:
            what = f"{service.head}client_{name} is {of_one}, more than {name}, which is {of_all}"
            yield Finding("L4R-164", (*loc, f"client_{name}"), what)


def _stateless(draft: Draft, service: DraftService) -> Iterator[Finding]:
    loc = (*service.loc, "full")
    if draft.get(loc) == "evict-oldest" and service.mode == "fullnat":
        what = f"{service.head}full is evict-oldest, but the mode is fullnat"
        yield Finding("L4R-166", loc, what, other=(*service.loc, "mode"))
    if draft.get(loc) != "stateless":
        return
    if draft.get((*service.loc, "limits")):
        what = f"{service.head}full is stateless, but limits count flows"
        yield Finding("L4R-165", loc, what, other=(*service.loc, "limits"))
    for name, value, ill in (
        ("mode", service.mode, ("nat", "fullnat")),
        ("scheduler", service.scheduler, _NO_HASH),
    ):
        if value in ill:
            what = f"{service.head}full is stateless, but the {name} is {value}"
            yield Finding("L4R-165", loc, what, other=(*service.loc, name))
    if draft.get((*service.loc, "affinity")):
        what = f"{service.head}full is stateless, but affinity keeps each client's choice"
        yield Finding("L4R-165", loc, what, other=(*service.loc, "affinity"))


def _changes(draft: Draft, service: DraftService) -> Iterator[Finding]:
    loc = (*service.loc, "flows")
    if draft.get(loc) != "track-changes":
        return
    head = f"{service.head}flows is track-changes, but"
    if service.vip and service.vip.protocol != values.PROTOCOLS["tcp"]:
        yield Finding("L4R-168", loc, f"{head} the service is udp", other=(*service.loc, "vip"))
    for name, value, ill in (
        ("mode", service.mode, ("nat", "fullnat")),
        ("scheduler", service.scheduler, (*_NO_HASH, "modulo")),
    ):
        if value in ill:
            yield Finding("L4R-168", loc, f"{head} the {name} is {value}", other=(*service.loc, name))
    full = draft.get((*service.loc, "full"))
    if full not in (None, "refuse-new"):
        yield Finding("L4R-168", loc, f"{head} full is {full}", other=(*service.loc, "full"))
    for name, what in (("limits", "limits count flows"), ("affinity", "affinity keeps each client's choice")):
        if draft.get((*service.loc, name)):
            yield Finding("L4R-168", loc, f"{head} {what}", other=(*service.loc, name))
