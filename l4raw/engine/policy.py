"""A policy as flat tables: the half that the helper reads next.

Lives here: the one translation of `Policy`, which core compiled from the
configuration, into the structs of the shared header. It decides nothing.
Numbers of services and backends are the policy's own.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from l4raw.core.acl import Ranges
from l4raw.core.flows import flow_key
from l4raw.core.hashing import HashKey, flow_hash, hash_key, mapped, scale, spread
from l4raw.core.model import Full, Mode, Service
from l4raw.core.tables import BackendEntry, Ends, Policy, ServiceEntry
from l4raw.engine import native
from l4raw.engine.layout import Layout, write_key
from l4raw.wire.abi import (
    DSR_GUE,
    DSR_IPIP,
    DSR_L2,
    FULL_EVICT_OLDEST,
    FULL_REFUSE_NEW,
    FULL_STATELESS,
    FULLNAT,
    IS_BACKEND,
    IS_OWN,
    IS_SNAT,
    IS_TUNNEL,
    IS_VIP,
    NAT,
    PROBES,
)

_MODES: Final = {
    Mode.DSR_L2: DSR_L2,
    Mode.DSR_IPIP: DSR_IPIP,
    Mode.DSR_GUE: DSR_GUE,
    Mode.NAT: NAT,
    Mode.FULLNAT: FULLNAT,
}
_FULL: Final = {
    Full.REFUSE_NEW: FULL_REFUSE_NEW,
    Full.EVICT_OLDEST: FULL_EVICT_OLDEST,
    Full.STATELESS: FULL_STATELESS,
}
_ATTEMPTS: Final = 1000
"""Hash keys tried for the lookup; at a load of a quarter the first few do."""


class Address(NamedTuple):
    """What an address is to us; see `enum l4_address_use`."""

    address: bytes
    port: int
    use: int
    service: int


def write_half(
    layout: Layout, half: int, policy: Policy, local: frozenset[bytes], paths: Mapping[Ends, tuple[int, int]]
) -> None:
    """Fill a half that nobody reads. `paths`: `Tables.paths`. Raises `OverflowError`: what is too many."""
    _write_services(layout, half, policy)
    _write_pools(layout, half, policy)
    _write_backends(layout, half, policy)
    for ends, (mtu, _) in paths.items():
        write_path(layout, half, policy, ends, mtu)
    _write_addresses(layout, half, list(_addresses(policy, local)))
    header = layout.at["policies"][half]
    header.services = len(policy.by_number)
    header.backends = len(policy.backends)
    # One seed for all rings, so one key: see build() in l4raw/core/ring.py.
    keys = {entry.ring.key for entry in policy.services.values()}
    assert len(keys) <= 1, "all rings of a policy are made with one seed"
    for key in keys:
        write_key(header.ring_key, key)


def _require(what: str, needed: int, room: int) -> None:
    if needed > room:
        raise OverflowError(f"the tables have room for {room} {what}, the configuration needs {needed}")


def _write_services(layout: Layout, half: int, policy: Policy) -> None:
    sizes = layout.sizes
    _require("services", len(policy.by_number), sizes.services)
    live = {entry.number for entry in policy.services.values()}
    slots = sum(_slots_of(e) for e in policy.by_number if e and e.number in live)
    _require("ring slots", slots, sizes.ring_slots)
    ranges = sum(len(e.acl.starts) for e in policy.services.values())
    _require("ranges of access lists", ranges, sizes.ranges)
    start = acl = 0
    rings = layout.at["rings"] + half * sizes.ring_slots
    services = layout.at["services"] + half * sizes.services
    size = native.ffi.sizeof("struct l4_service") * sizes.services
    native.ffi.buffer(services, size)[:] = bytes(size)
    for entry in policy.by_number:
        if entry is None:
            continue
        size = len(entry.ring.slots) if entry.number in live else 0
        to = services[entry.number]
        _write_service(to, entry, start, size)
        to.owners = len(entry.owners) if entry.owners and entry.number in live else 0
        if entry.number not in live:
            to.protocol = 0
        to.acl_start = acl
        to.acl_size = _write_acl(layout, half, entry.acl, acl) if entry.number in live else 0
        acl += to.acl_size
        if size:
            native.ffi.memmove(rings + start, entry.ring.slots, 2 * size)
        if to.owners:
            native.ffi.memmove(rings + start + size, entry.owners, 2 * to.owners)
        start += size + to.owners


def _slots_of(entry: ServiceEntry) -> int:
    """Those of its ring, and after them their owners."""
    return len(entry.ring.slots) + len(entry.owners or ())


def _write_service(to: Any, entry: ServiceEntry, start: int, size: int) -> None:
    service = entry.service
    to.vip = mapped(service.vip)
    to.port_be = socket.htons(service.port)
    to.protocol = service.protocol
    to.mode = _MODES[service.mode]
    to.rule = entry.ring.rule
    to.full = _FULL[service.full]
    to.mss_clamp = service.mss_clamp
    limits = service.limits
    to.flows, to.new_per_s = limits.flows, limits.new_per_s
    to.client_flows, to.client_new_per_s = limits.client_flows, limits.client_new_per_s
    to.affinity = service.affinity
    to.ring_start, to.ring_size = start, size


def _write_acl(layout: Layout, half: int, acl: Ranges, start: int) -> int:
    """How many ranges there are now from `start` on."""
    for number, (address, allowed) in enumerate(zip(*acl, strict=True)):
        to = layout.at["ranges"][half * layout.sizes.ranges + start + number]
        to.high, to.low, to.allowed = int.from_bytes(address[:8]), int.from_bytes(address[8:]), allowed
    return len(acl.starts)


def _write_pools(layout: Layout, half: int, policy: Policy) -> None:
    limit = layout.sizes.snats
    pools = [(entry.number, entry.pool) for entry in policy.services.values() if entry.pool]
    _require("SNAT ranges", sum(len(pool.ranges) for _, pool in pools), limit)
    start = 0
    for number, pool in pools:
        service = layout.at["services"][half * layout.sizes.services + number]
        service.snat_start, service.snat_ranges = start, len(pool.ranges)
        service.snat_ports, service.snat_modulus = pool.size, pool.modulus
        for each, before in zip(pool.ranges, pool.starts, strict=True):
            to = layout.at["snats"][half * limit + start]
            to.address, to.port, to.start = mapped(each.address), each.first, before
            start += 1


def _write_backends(layout: Layout, half: int, policy: Policy) -> None:
    limit = layout.sizes.backends
    _require("backends", len(policy.backends), limit)
    for entry in filter(None, policy.backends):
        service = policy.by_number[entry.service]
        assert service is not None, "a backend is one of a service"
        to = layout.at["backends"][half * limit + entry.number]
        to.address = mapped(entry.backend.address)
        to.port_be = socket.htons(entry.backend.port)
        to.next_hop, to.service, to.arm = entry.next_hop, entry.service, entry.arm
        to.takes_flows = entry.number in service.ring.members
        _write_tunnel(to, entry, service.service)


def write_path(layout: Layout, half: int, policy: Policy, ends: Ends, mtu: int) -> None:
    """The MTU of the path of a tunnel, in each backend at its end; also in the half that queues read."""
    for entry in policy.tunnels.get(ends, ()):
        layout.at["backends"][half * layout.sizes.backends + entry.number].path_mtu = mtu


def _write_tunnel(to: Any, entry: BackendEntry, service: Service) -> None:
    to.mode, to.path_mtu = _MODES[service.mode], 0
    if service.mode.is_tunnel:
        to.source = mapped(entry.source)
        to.tunnel_port_be, to.tunnel_ttl = socket.htons(service.tunnel.port), service.tunnel.ttl


def _addresses(policy: Policy, local: frozenset[bytes]) -> Iterable[Address]:
    for (vip, port, protocol), entry in policy.services.items():
        yield Address(vip, port, protocol, entry.number)
    for vip in sorted(policy.vips):
        yield Address(vip, 0, IS_VIP, 0)
    for address in sorted(policy.snat):
        yield Address(address, 0, IS_SNAT, 0)
    for address in sorted(_nat_backends(policy)):
        yield Address(address, 0, IS_BACKEND, 0)
    for address, port in sorted(_tunnel_ends(policy)):
        yield Address(address, port, IS_TUNNEL, 0)
    for address in sorted(local):
        yield Address(address, 0, IS_OWN, 0)


def _nat_backends(policy: Policy) -> set[bytes]:
    """Whose fragments may be of replies, wherever they go to; those of fullnat go to a SNAT address."""
    services = [entry.service for entry in policy.services.values() if entry.service.mode is Mode.NAT]
    return {backend.address for service in services for backend in service.backends}


def _tunnel_ends(policy: Policy) -> set[tuple[bytes, int]]:
    """Address and UDP port, or 0, that a tunnel of this policy leads to."""
    services = [entry.service for entry in policy.services.values() if entry.service.mode.is_tunnel]
    return {
        (backend.address, service.tunnel.port if service.mode is Mode.DSR_GUE else 0)
        for service in services
        for backend in service.backends
    }


def _write_addresses(layout: Layout, half: int, addresses: list[Address]) -> None:
    sizes = layout.sizes
    _require("services, VIPs, SNAT and own addresses", len(addresses), sizes.addresses)
    for attempt in range(_ATTEMPTS):
        key = hash_key(b"lookup %d" % attempt)
        places = _placed(addresses, key, sizes.places)
        if places is not None:
            break
    else:
        raise OverflowError(f"no lookup of {sizes.places} places was found for {len(addresses)} addresses")
    header = layout.at["policies"][half]
    header.places = sizes.places
    write_key(header.lookup_key, key)
    header.ours = _ours(addresses, key)
    stride = sizes.places + PROBES - 1
    start = layout.at["places"] + half * stride
    size = native.ffi.sizeof("struct l4_place") * stride
    native.ffi.buffer(start, size)[:] = bytes(size)
    for index, each in places.items():
        to = start[index]
        to.address = mapped(each.address)
        to.port_be = socket.htons(each.port)
        to.protocol, to.service, to.used = each.use, each.service, 1


def _ours(addresses: list[Address], key: HashKey) -> list[int]:
    """The 256 bits that l4_may_be_ours() in native/src/lookup.h asks."""
    words = [0] * 4
    for each in addresses:
        if each.use in (IS_VIP, IS_SNAT, IS_OWN):
            whole = mapped(each.address)
            halves = (int.from_bytes(half, sys.byteorder) for half in (whole[:8], whole[8:]))
            bit = spread((sum(halves) + key.k[0]) % (1 << 64)) >> 56
            words[bit >> 6] |= 1 << (bit & 63)
    return words


def _placed(addresses: list[Address], key: HashKey, places: int) -> dict[int, Address] | None:
    """Each in the first free one of PROBES places from its hash on; None: this key does not do."""
    taken: dict[int, Address] = {}
    for each in addresses:
        # As a flow's key, from the address to none.
        nobody = bytes(len(each.address))
        start = scale(flow_hash(key, flow_key(each.address, 0, nobody, each.port, each.use)) >> 32, places)
        for index in range(start, start + PROBES):
            if index not in taken:
                taken[index] = each
                break
        else:
            return None
    return taken
