"""What a configuration means: values that only make sense, or not, together.

Lives here: one small function for each rule. They read a draft (draft.py): the document
without the values whose shape is wrong, so that an unknown mode and a VIP given
twice are reported together. A value that is not known breaks no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from l4raw.control import meaning_check, meaning_limits, meaning_snat
from l4raw.control.draft import Draft, DraftBackend, DraftService
from l4raw.control.source import Finding
from l4raw.control.tunnel_rules import OF, TUNNELS, tunnel
from l4raw.core.ring import turns
from l4raw.wire import abi

_WITH_WEIGHTS = {"rr": "wrr", "lc": "wlc", "modulo": "maglev"}
"""Schedulers without weights, and what is most like them and has some."""
_DSR = ("dsr-l2", *TUNNELS)


def check(draft: Draft) -> Iterator[Finding]:
    """Everything that does not make sense, in no order."""
    yield from _interfaces(draft)
    yield from _repeated(
        draft.services,
        lambda service: service.name,
        lambda again, first: Finding(
            "L4R-130",
            (*again.loc, "name"),
            f'two services are named "{again.name}"',
            other=(*first.loc, "name"),
        ),
    )
    yield from _repeated(
        draft.services,
        lambda service: service.vip,
        lambda again, first: Finding(
            "L4R-131",
            (*again.loc, "vip"),
            f"{again.head}its VIP, port and protocol are also those of {first.head[:-2]}",
            other=(*first.loc, "vip"),
        ),
    )
    yield from _vips_as_backends(draft)
    yield from _too_many(draft)
    yield from meaning_snat.check(draft)
    for service in draft.services:
        yield from _backends(service)
        yield from _dsr_ports(service)
        yield from _weights(service)
        yield from _versions(service)
        yield from meaning_limits.check(draft, service)
        yield from meaning_check.check(draft, service)
        yield from tunnel(draft, service)


def _repeated(
    items: list[Any], identity: Callable[[Any], Hashable | None], finding: Callable[[Any, Any], Finding]
) -> Iterator[Finding]:
    """A finding for each item whose identity an earlier one has."""
    seen: dict[Hashable, Any] = {}
    for item in items:
        key = identity(item)
        if key is None:
            continue
        if key in seen:
            yield finding(item, seen[key])
        else:
            seen[key] = item


def _interfaces(draft: Draft) -> Iterator[Finding]:
    if len(draft.interfaces) == 2 and draft.interfaces[0] == draft.interfaces[1]:
        name = draft.interfaces[0]
        yield Finding(
            "L4R-140",
            ("lb", "interfaces", 1),
            f'[lb]: interface "{name}" is named twice',
            f'for one-arm: interfaces = ["{name}"]',
        )


def _vips_as_backends(draft: Draft) -> Iterator[Finding]:
    vips = {service.vip.address: service for service in reversed(draft.services) if service.vip}
    for service in draft.services:
        for backend in service.backends:
            owner = vips.get(backend.address) if backend.address else None
            if owner:
                yield Finding(
                    "L4R-138",
                    (*backend.loc, "address"),
                    f"{backend.head}its address is the VIP of {owner.head[:-2]}",
                    other=(*owner.loc, "vip"),
                )


def _too_many(draft: Draft) -> Iterator[Finding]:
    total = sum(len(service.backends) for service in draft.services)
    # Index 0 of the table means "none".
    if total >= abi.BACKENDS:
        what = f"there are {total} backends; at most {abi.BACKENDS - 1} are possible"
        yield Finding("L4R-107", ("service",), what)


def _backends(service: DraftService) -> Iterator[Finding]:
    if service.has_backends is False:
        yield Finding("L4R-134", (*service.loc, "backends"), f"{service.head}there are no backends")
    yield from _repeated(
        service.backends,
        lambda backend: backend.name,
        lambda again, first: Finding(
            "L4R-132",
            (*again.loc, "name"),
            f'{service.head}two backends are named "{again.name}"',
            other=(*first.loc, "name"),
        ),
    )

    def place(backend: DraftBackend) -> Hashable | None:
        if backend.address is None or backend.port is None:
            return None
        # Without a port of its own a backend is asked at the VIP's.
        return backend.address, backend.port or (service.vip.port if service.vip else 0)

    yield from _repeated(
        service.backends,
        place,
        lambda again, first: Finding(
            "L4R-133",
            (*again.loc, "address"),
            f"{again.head}its address and port are also those of {first.head[len(service.head) : -2]}",
            other=(*first.loc, "address"),
        ),
    )


def _dsr_ports(service: DraftService) -> Iterator[Finding]:
    if service.mode not in _DSR:
        return
    for backend in service.backends:
        if backend.port:
            what = f"{backend.head}{service.mode} cannot change the port"
            yield Finding("L4R-135", (*backend.loc, "port"), what, key=True)


def _versions(service: DraftService) -> Iterator[Finding]:
    """A frame's IP version stays what it is: no mode makes one of the other; but a tunnel takes either."""
    if service.vip is None or service.mode in TUNNELS:
        return
    for backend in service.backends:
        if backend.address is not None and len(backend.address) != len(service.vip.address):
            what = (
                f"{backend.head}its address is {OF[len(backend.address)]},"
                f" the VIP is {OF[len(service.vip.address)]}"
            )
            yield Finding("L4R-143", (*backend.loc, "address"), what, other=(*service.loc, "vip"))


def _weights(service: DraftService) -> Iterator[Finding]:
    known = [backend.weight for backend in service.backends]
    if service.scheduler in _WITH_WEIGHTS:
        for backend in service.backends:
            # 0 takes no new flows, whatever the scheduler.
            if backend.weight not in (0, 1, None):
                other = _WITH_WEIGHTS[service.scheduler]
                what = f"{backend.head}scheduler {service.scheduler} has no weights but 0 and 1; {other} has"
                yield Finding("L4R-136", (*backend.loc, "weight"), what, key=True)
    if known and all(weight == 0 for weight in known):
        yield Finding("L4R-137", (*service.loc, "backends"), f"{service.head}every backend has weight 0")
    length = turns([weight for weight in known if weight])
    if service.scheduler == "wrr" and length > abi.MAGLEV_SLOTS:
        what = f"the weights of wrr add up to {length} turns; at most {abi.MAGLEV_SLOTS} are possible"
        yield Finding("L4R-107", (*service.loc, "backends"), service.head + what)
