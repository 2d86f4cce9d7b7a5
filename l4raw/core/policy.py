"""The configuration, compiled: what steer() looks up and nobody changes.

A policy is replaced as a whole. Services and backends have numbers, which keep
their meaning from one policy to the next. Must not live here: what changes
while frames come (tables.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from l4raw.core.acl import EVERYBODY, Ranges, compile_acl
from l4raw.core.model import Backend, Service
from l4raw.core.ring import Ring, build
from l4raw.core.snat import Pool, pool_of
from l4raw.core.timeouts import Timeouts
from l4raw.wire.abi import BACKENDS, SERVICES


class BackendEntry(NamedTuple):
    """A backend as the tables know it."""

    number: int
    service: int
    backend: Backend
    next_hop: int
    arm: int
    source: bytes = b""
    """Where its tunnel's packets come from: an address of its own version; empty: its service has none."""


Ends = tuple[bytes, bytes]
"""Of a tunnel: its source, and the backend's address."""


class ServiceEntry(NamedTuple):
    """A service as the tables know it."""

    number: int
    service: Service
    ring: Ring
    timeouts: tuple[int, ...]
    """By flow state, in ms."""
    acl: Ranges = EVERYBODY
    pool: Pool | None = None
    """Of a fullnat service."""
    owners: array[int] | None = None
    """By slot, of a service that tracks changes only, once it is in force: see changes.py."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Compiled configuration. Numbers keep their meaning from one policy to the next."""

    services: dict[tuple[bytes, int, int], ServiceEntry]
    """By VIP, port (0: every port) and protocol."""
    vips: frozenset[bytes]
    by_number: tuple[ServiceEntry | None, ...]
    """Services, those of earlier policies included: their flows may live on."""
    backends: tuple[BackendEntry | None, ...]
    """By number, likewise."""
    snat: frozenset[bytes] = frozenset()
    """All SNAT addresses."""
    repliers: frozenset[tuple[bytes, int]] = frozenset()
    """Backends whose replies pass here, and the arms that these come in on."""
    tunnels: Mapping[Ends, tuple[BackendEntry, ...]] = field(default_factory=dict)
    """Backends that a tunnel leads to, those of earlier policies included."""

    def find(self, vip: bytes, port: int, protocol: int) -> ServiceEntry | None:
        """The service of a destination: the one that names the port, else the one for every port."""
        services = self.services
        return services.get((vip, port, protocol)) or services.get((vip, 0, protocol))


NO_POLICY = Policy({}, frozenset(), (None,), (None,))


def compile_policy(
    services: Sequence[Service],
    hops: Mapping[bytes, tuple[int, int]],
    seed: bytes,
    timeouts: Mapping[str, Timeouts] | None = None,
    previous: Policy = NO_POLICY,
    sources: Mapping[bytes, bytes] | None = None,
) -> Policy:
    """Turn services into tables.

    `hops` gives the next hop's index and arm for a backend's address, `seed`
    is the ring seed, `timeouts` goes by service name, `sources` has for a
    backend's address the one that its tunnel's packets come from, if the
    service names none. Services and backends
    that `previous` knows keep their numbers; one whose mode has changed is
    another service, for its flows keep theirs. Raises `OverflowError` past
    the limits of the shared header.
    """
    by_number = list(previous.by_number)
    backends = list(previous.backends)
    known = {(e.service.name, e.service.mode): e.number for e in by_number if e}
    known_backends = {(e.service, e.backend.address, e.backend.port): e.number for e in backends if e}
    table = {}
    for service in services:
        number = _numbered(known, (service.name, service.mode), by_number)
        members = []
        for backend in service.backends:
            place = _numbered(known_backends, (number, backend.address, backend.port), backends)
            source = (service.tunnel.source or b"") if service.mode.is_tunnel else b""
            if service.mode.is_tunnel and not source:
                assert sources is not None, "a tunnel's packets come from somewhere"
                source = sources[backend.address]
            backends[place] = BackendEntry(place, number, backend, *hops[backend.address], source)
            members.append((place, backend))
        ring = build(service.scheduler, members, seed)
        limits = (timeouts or {}).get(service.name, Timeouts()).by_state(service.affinity)
        entry = ServiceEntry(number, service, ring, limits, compile_acl(service.acl), pool_of(service.snat))
        by_number[number] = table[service.vip, service.port, service.protocol] = entry
    if len(by_number) > SERVICES or len(backends) > BACKENDS:
        raise OverflowError(f"more than {SERVICES - 1} services or {BACKENDS - 1} backends")
    vips = frozenset(service.vip for service in services)
    snat = frozenset(each.address for service in services for each in service.snat)
    answering = (b.address for service in services if service.mode.is_nat for b in service.backends)
    repliers = frozenset((address, hops[address][1]) for address in answering)
    tunnels: dict[Ends, tuple[BackendEntry, ...]] = {}
    for each in backends:
        if each and each.source:
            ends = each.source, each.backend.address
            tunnels[ends] = (*tunnels.get(ends, ()), each)
    return Policy(table, vips, tuple(by_number), tuple(backends), snat, repliers, tunnels)


_Key = TypeVar("_Key")
_Entry = TypeVar("_Entry")


def _numbered(known: dict[_Key, int], key: _Key, entries: list[_Entry | None]) -> int:
    """The number of `key`; a new one, with a place at the end of `entries`, if it has none."""
    if key not in known:
        known[key] = len(entries)
        entries.append(None)
    return known[key]
