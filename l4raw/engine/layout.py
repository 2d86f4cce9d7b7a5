"""How large each shared table is, and where the helper finds it.

Lives here: sizes, chosen at the start and never changed, the memory of each
table, and the views (`struct l4_tables`) that queues have of it. What is in
the tables is written by policy.py and shared.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from l4raw.core.flows import FIRST_MARK
from l4raw.core.hashing import HashKey
from l4raw.core.limits import BUCKETS
from l4raw.core.room import buckets_in, overflow_in, places_at
from l4raw.core.share import half_open_for, places_for
from l4raw.core.tables import Arm
from l4raw.engine import native
from l4raw.engine.memory import Allocate, Memory, anonymous
from l4raw.wire.abi import (
    BACKENDS,
    CAPACITY_PERCENT,
    HALVES,
    MAGLEV_SLOTS,
    NEXT_HOPS,
    PROBES,
    SERVICES,
    SLOTS,
    STRIPES,
)

_KEPT: Final[WeakKeyDictionary[Any, Layout]] = WeakKeyDictionary()
"""What each view points into: a pointer in a struct keeps nothing alive."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the tables have room for. Numbers of services and backends that are gone count too."""

    flow_memory: int
    """Bytes of the flow table."""
    queues: int = 1
    services: int = 64
    backends: int = 1024
    ring_slots: int = 16 * MAGLEV_SLOTS
    """Of all services together; those of a service that tracks changes count twice."""
    addresses: int = 256
    """Services, VIPs, SNAT addresses and addresses of our own, together."""
    snats: int = 64
    """Ranges of SNAT pools, of all services together."""
    next_hops: int = NEXT_HOPS
    client_buckets: int = BUCKETS
    """Of clients that are counted, CLIENT_PLACES in each."""
    ranges: int = 256
    """Of all access lists together: at most two a prefix, and one a list."""
    cpus: int = 0
    """That may run the kernel path: it counts by CPU. 0: there is none."""

    def __post_init__(self) -> None:
        limits = ((self.services, SERVICES), (self.backends, BACKENDS), (self.next_hops, NEXT_HOPS))
        if not all(0 < size <= limit for size, limit in limits) or self.queues < 1:
            raise ValueError(f"beyond the limits of the shared header: {self}")

    @property
    def writers(self) -> int:
        """Who has counters: each queue, Python after them, and each CPU."""
        return self.queues + 1 + self.cpus

    @property
    def places(self) -> int:
        """Of the address lookup: four for each address, so that all are found near their hash."""
        return 4 * self.addresses


class _Table(NamedTuple):
    field: str
    """Of `struct l4_tables`."""
    element: str
    elements: int


def _tables(sizes: Sizes) -> tuple[_Table, ...]:
    """Each is one mapping."""
    return (
        _Table("control", "struct l4_control", 1),
        _Table("stripes", "uint32_t", STRIPES),
        _Table("next_hops", "struct l4_next_hop", sizes.next_hops + 1),
        _Table("heads", "uint32_t", sizes.next_hops),
        _Table("cursors", "uint32_t", sizes.services),
        _Table("usage", "struct l4_usage", sizes.services),
        _Table("clients", "struct l4_clients", sizes.client_buckets),
        _Table("policies", "struct l4_policy", HALVES),
        _Table("places", "struct l4_place", HALVES * (sizes.places + PROBES - 1)),
        _Table("services", "struct l4_service", HALVES * sizes.services),
        _Table("backends", "struct l4_backend", HALVES * sizes.backends),
        _Table("snats", "struct l4_snat", HALVES * sizes.snats),
        _Table("rings", "uint16_t", HALVES * sizes.ring_slots),
        _Table("ranges", "struct l4_range", HALVES * sizes.ranges),
        _Table("queue", "struct l4_queue", sizes.writers),
        _Table("traffic", "struct l4_traffic", sizes.writers * sizes.backends),
    )


class Layout:
    """The memory of all tables, zeroed but for what is fixed at the start."""

    def __init__(
        self, sizes: Sizes, arms: tuple[Arm, ...], hash_key: HashKey, allocate: Allocate = anonymous
    ) -> None:
        self.sizes = sizes
        self.flows = allocate("flows", sizes.flow_memory)
        self.at: dict[str, Any] = {}
        """By field of `struct l4_tables`: a pointer to the first element."""
        self._kept: list[Any] = [self.flows]
        for field, element, elements in _tables(sizes):
            memory = allocate(field, native.ffi.sizeof(element) * elements)
            self._point(field, element, memory)
        self._point("flows", "struct l4_flow", self.flows)
        self._write_control(arms, hash_key)
        buckets, entries = self.control.buckets, self.control.flow_entries
        self.at["marks"] = native.ffi.cast("uint8_t *", self.at["flows"] + entries)
        # Marks and tags take whole lines.
        lines = -(-buckets // native.ffi.sizeof("struct l4_flow"))
        self.at["tags"] = native.ffi.cast("uint32_t *", self.at["flows"] + entries + lines)
        self.at["half_open"] = native.ffi.cast("uint32_t *", self.at["marks"] + places_at(buckets))

    def _point(self, field: str, element: str, memory: Memory) -> None:
        array = native.ffi.from_buffer(f"{element}[]", memory, require_writable=True)
        self._kept.append(array)
        self.at[field] = native.ffi.cast(f"{element} *", array)

    def _write_control(self, arms: tuple[Arm, ...], hash_key: HashKey) -> None:
        sizes, control = self.sizes, self.control
        buckets = buckets_in(sizes.flow_memory)
        write_key(control.key, hash_key)
        control.buckets = buckets
        control.flow_entries = buckets * SLOTS + overflow_in(buckets)
        control.flow_capacity = buckets * SLOTS * CAPACITY_PERCENT // 100
        control.service_limit = sizes.services
        control.backend_limit = sizes.backends
        control.place_limit = sizes.places + PROBES - 1
        control.ring_limit = sizes.ring_slots
        control.snat_limit = sizes.snats
        control.hop_limit = sizes.next_hops
        control.head_limit = sizes.next_hops
        control.queue_limit = sizes.queues
        control.range_limit = sizes.ranges
        control.mark = FIRST_MARK
        control.client_limit = sizes.client_buckets
        control.first_cpu = sizes.queues + 1
        control.place_count = places_for(control.flow_capacity)
        control.half_open_limit = half_open_for(control.flow_capacity)
        for number, arm in enumerate(arms):
            control.arms[number] = arm.mac.ljust(8, b"\0")
        self.write_mtu(arms)

    def write_mtu(self, arms: tuple[Arm, ...]) -> None:
        """What is longer than the arm that it leaves by takes is a miss."""
        self.control.least_mtu = 0  # meanwhile each arm's own counts
        for number, arm in enumerate(arms):
            self.control.mtus[number] = arm.mtu
        self.control.least_mtu = min((arm.mtu for arm in arms), default=0)

    @property
    def control(self) -> Any:
        """`struct l4_control *`"""
        return self.at["control"]

    def view(self, queue: int) -> Any:
        """`struct l4_tables *` for the thread of this queue, or Python's, after the last one.

        As long as it is there, so are the tables.
        """
        view = native.ffi.new("struct l4_tables *")
        for field, pointer in self.at.items():
            setattr(view, field, pointer)
        view.queue = self.at["queue"] + queue
        view.traffic = self.at["traffic"] + queue * self.sizes.backends
        _KEPT[view] = self
        return view


def write_key(to: Any, key: HashKey) -> None:
    """Write the multipliers into a `struct l4_hash_key`."""
    to.k, to.base = key.k, key.base
