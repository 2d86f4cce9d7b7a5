"""Tables that the helper's threads and Python's steer() use at the same time.

`SharedTables` is a `Tables`: steer(), expire() and the neighbours' thread
work on it as on any other. Underneath, what a frame can change lies in the
flat tables of layout.py, and is changed only through the helper, which takes
the locks. Counters are not shared: each queue has its own, Python has the
lists of `Tables`, and rows after those of the queues for what C does in its
name; `total_verdicts` and the like add them up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from l4raw.core.changes import carried
from l4raw.core.entry import ENTRY, Entry, Known
from l4raw.core.flows import FlowTable
from l4raw.core.hashing import HashKey
from l4raw.core.tables import Arm, Ends, Policy, Tables, Traffic
from l4raw.engine import native
from l4raw.engine.layout import Layout, Sizes
from l4raw.engine.memory import Allocate, anonymous
from l4raw.engine.policy import write_half, write_path
from l4raw.engine.shared_counts import SharedCounts, SharedCursors
from l4raw.engine.shared_hops import SharedNextHops, held
from l4raw.wire.abi import BUSY, EVENT_COUNT, FLOW_FREE, MISS_NAMES, VERDICT_COUNT

_SETTLE_S: Final = 1.0
"""How long a queue may take for a burst. It takes microseconds, unless its thread is not run."""
_ENTRY: Final = "struct l4_flow *"


class SharedFlows(FlowTable):
    """The flow table, through the helper."""

    def __init__(self, layout: Layout, hash_key: HashKey, view: Any) -> None:
        self._control = layout.control
        super().__init__(layout.flows, hash_key, layout.sizes.flow_memory)
        self._view = view
        self._copy = native.ffi.new(_ENTRY)
        self._bytes = native.ffi.buffer(self._copy)
        self._was, self._now_is = native.ffi.new(_ENTRY), native.ffi.new(_ENTRY)

    @property
    def used(self) -> int:
        """Entries in use, whoever made them."""
        return int(self._control.used)

    @used.setter
    def used(self, value: int) -> None:
        assert value == 0, "the helper counts"

    @property
    def half_open(self) -> int:
        """Half-open flows, and those about to begin, whoever makes them."""
        return int(self._control.half_open_used)

    def note_resting(self, count: int) -> None:
        """How many of them rest now; the helper reads it."""
        self.resting = self._control.resting = count

    def find(self, key: bytes) -> int:
        """Index of the entry with this 37-byte key, or -1."""
        entry = native.ffi.from_buffer(_ENTRY, key.ljust(ENTRY.size))
        index: int = native.lib.l4_flow_find(self._view, entry)
        if index == BUSY:
            raise held("find")
        return index

    def insert(
        self, key: bytes, state: int, service: int, backend: int, next_hop: int, now: int, place: int = 0
    ) -> int:
        """Add an entry. Its index; or FULL, or TAKEN if another thread was faster."""
        return self._put(_image(key, state, service, backend, next_hop, now, place), native.ffi.NULL)

    def insert_pair(
        self,
        key: bytes,
        reply_key: bytes,
        state: int,
        service: int,
        backend: int,
        hop: int,
        now: int,
        place: int = 0,
    ) -> int:
        """Add both entries of a NAT flow at once. Index of the first; or FULL, TAKEN or REPLY_TAKEN."""
        flow = _image(key, state, service, backend, 0, now, place)
        reply = _image(reply_key, state, service, backend, hop, now)
        return self._put(flow, reply)

    def _put(self, flow: Any, reply: Any) -> int:
        index: int = native.lib.l4_flow_put(self._view, flow, reply)
        if index == BUSY:
            raise held("put")
        return index

    def read(self, index: int) -> Entry:
        """What the entry says, all of it at one moment."""
        if native.lib.l4_flow_read(self._view, index, self._copy) == BUSY:
            raise held("read")
        return tuple.__new__(Entry, ENTRY.unpack(self._bytes)[1:])

    def look_up(self, key: bytes) -> Known | None:
        """The flow with this 37-byte key; others may free it, or make another one there, at any moment."""
        while (index := self.find(key)) >= 0:
            entry = self.read(index)
            if entry.state == FLOW_FREE or self._bytes[: len(key)] != key:
                continue
            peer = self.ends(entry.peer - 1) if entry.peer else None
            if self.read(index).lock == entry.lock:  # so the peer was its peer
                return tuple.__new__(Known, (index, entry, peer))
        return None

    def link(self, index: int, other: int) -> None:
        """Not here: a NAT flow is never seen with half of its entries."""
        raise NotImplementedError("use insert_pair")

    def touch(self, index: int, was: Entry, state: int, now: int, packets: int, sequence: int = 0) -> None:
        """Note the state, the time in ms, how many frames the flow has had (modulo 2^32), and `sequence`."""
        self._was.lock, self._was.state = was.lock, was.state
        now_is = self._now_is
        now_is.state, now_is.last_seen, now_is.sequence = state, now, sequence
        now_is.packets = packets & 0xFFFF_FFFF
        native.lib.l4_flow_touch(self._view, index, self._was, now_is)

    def renew(self, index: int, lock: int, backend: int, now: int) -> bool:
        """Note that a client's choice is this backend, and the time. False: the entry is another's now."""
        return bool(native.lib.l4_choice_renew(self._view, index, lock, backend, now))

    def delete(self, index: int) -> None:
        """Not here: a NAT flow is never seen with half of its entries."""
        raise NotImplementedError("use Tables.free")


def _image(
    key: bytes, state: int, service: int, backend: int, next_hop: int, now: int, place: int = 0
) -> Any:
    """An entry to put."""
    packed = ENTRY.pack(key, state, service, backend, next_hop, 0, now, place, 0, 0)
    return native.ffi.from_buffer(_ENTRY, packed)


class SharedTables(Tables):
    """All state of the packet path, for the helper and for Python."""

    def __init__(
        self,
        arms: tuple[Arm, ...],
        hash_key: HashKey,
        sizes: Sizes,
        allocate: Allocate = anonymous,
        wait_for_programs: Callable[[], object] = lambda: None,
    ) -> None:
        """`wait_for_programs` returns when no BPF program reads what it began to read before."""
        self.layout = Layout(sizes, arms, hash_key, allocate)
        self._wait_for_programs = wait_for_programs
        self._view = self.layout.view(sizes.queues)
        self._queues_view = self.layout.view(0)
        flows = SharedFlows(self.layout, hash_key, self._view)
        hops = SharedNextHops(self.layout, self._view)
        counts = SharedCounts(self.layout, hash_key, self._view)
        super().__init__(arms, flows, hops, cursors=SharedCursors(self.layout), counts=counts)

    @property
    def now(self) -> int:
        """The clock cell, which the helper reads too."""
        return int(self.layout.control.now)

    @now.setter
    def now(self, value: int) -> None:
        self.layout.control.now = value

    def set_mtu(self, arm: int, mtu: int) -> None:
        """As in `Tables`; queues read it with their next frame."""
        super().set_mtu(arm, mtu)
        self.layout.write_mtu(self.arms)

    def path_is(self, ends: Ends, mtu: int) -> None:
        """As in `Tables`; queues read it with their next frame."""
        write_path(self.layout, self.layout.control.generation & 1, self.policy, ends, mtu)

    def install(self, policy: Policy) -> None:
        """Write the idle half and make it the one in force, for every queue from its next burst on.

        Raises `OverflowError` when the policy does not fit, and then nothing has changed.
        """
        policy = carried(self.policy, policy)
        deadline = time.monotonic() + _SETTLE_S
        while not native.lib.l4_settled(self._queues_view):
            if time.monotonic() > deadline:
                raise RuntimeError(f"install: a queue has not finished a burst for {_SETTLE_S} s")
            time.sleep(0.0005)
        self._wait_for_programs()
        write_half(self.layout, (self.layout.control.generation + 1) & 1, policy, self.local, self.paths)
        self._put(policy)
        native.lib.l4_switch(self._queues_view)

    def evict_half_open(self) -> bool:
        """Have the oldest half-open flow go; whether there was one."""
        result = native.lib.l4_half_open_evict(self._view)
        if result == BUSY:
            raise held("evict")
        return bool(result == 0)

    def take_place(self) -> int:
        """A place for a new flow among the half-open ones, from 1 on; the oldest goes if there is none."""
        place: int = native.lib.l4_place_take(self._view)
        if not place:
            raise held("take a place")
        return place

    def drop_place(self, place: int) -> None:
        """Give back a place that no flow has got."""
        native.lib.l4_place_drop(self._view, place)

    def free(self, index: int, lock: int) -> bool:
        """End the flow of this entry, if `lock` still is the entry's lock word; whether it did."""
        result = native.lib.l4_flow_free(self._view, index, lock)
        if result == BUSY:
            raise held("free")
        return bool(result == 0)

    def view(self, queue: int) -> Any:
        """`struct l4_tables *` for this queue's thread; keep it as long as that runs."""
        return self.layout.view(queue)

    def total_verdicts(self) -> list[int]:
        """Frames by verdict, of all queues and of Python."""
        queues = self._queues()
        return [self.verdicts[i] + sum(q.verdicts[i] for q in queues) for i in range(VERDICT_COUNT)]

    def total_events(self) -> list[int]:
        """Events by number, likewise."""
        queues = self._queues()
        return [self.events[i] + sum(q.events[i] for q in queues) for i in range(EVENT_COUNT)]

    def interfaces_are(self, numbers: Sequence[int]) -> None:
        """Of the arms, for XDP programs, which know interfaces by number."""
        for arm, number in enumerate(numbers):
            self.layout.control.interfaces[arm] = number

    def kernel_forwards(self, does: bool) -> None:
        """Whether the kernel path sends frames, or leaves them all to the queues."""
        self.layout.control.forwards = does

    def by_kernel(self) -> int:
        """Frames that the kernel path has sent; they are in the other counters too."""
        return sum(self.verdicts_by_kernel())

    def verdicts_by_kernel(self) -> list[int]:
        """The same by verdict."""
        rows = self._queues()[self.layout.sizes.queues + 1 :]
        return [sum(row.verdicts[i] for row in rows) for i in range(VERDICT_COUNT)]

    def misses(self) -> dict[str, int]:
        """Frames that the helper left to Python, by reason; each has a verdict of its own as well."""
        queues = self._queues()
        return {name: sum(q.misses[i] for q in queues) for i, name in enumerate(MISS_NAMES)}

    def total_traffic(self, backend: int) -> Traffic:
        """The counters of one backend, of all queues and of Python."""
        own, rows = self.backends[backend], self._rows(backend, self.layout.sizes.writers)
        return Traffic(
            own.flows + sum(row.flows for row in rows),
            own.packets + sum(row.packets for row in rows),
            own.bytes + sum(row.bytes for row in rows),
            own.reply_packets + sum(row.reply_packets for row in rows),
            own.reply_bytes + sum(row.reply_bytes for row in rows),
            own.dropped + sum(row.dropped for row in rows),
            own.ended + sum(row.ended for row in rows),
        )

    def current_flows(self, backend: int) -> int:
        """Flows in the table that go to this backend, whoever made them.

        Asked for each new flow of lc and wlc, and so not of each CPU: all count in the first one's row.
        """
        sizes = self.layout.sizes
        rows = self._rows(backend, min(sizes.queues + 2, sizes.writers))
        return super().current_flows(backend) + int(sum(row.flows - row.ended for row in rows))

    def _queues(self) -> list[Any]:
        """What counts, in place of `Tables.verdicts`."""
        return [self.layout.at["queue"][i] for i in range(self.layout.sizes.writers)]

    def _rows(self, backend: int, writers: int) -> list[Any]:
        """Likewise, of one backend: those of the first so many."""
        sizes, rows = self.layout.sizes, self.layout.at["traffic"]
        return [rows[writer * sizes.backends + backend] for writer in range(writers)]
