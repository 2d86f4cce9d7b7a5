"""The flow table: 64-byte entries in a flat buffer.

The layout is `struct l4_flow` of native/include/l4raw_abi.h, and so is the
way an entry is found, so that C and BPF read and write the same memory. No
object is kept for a flow.

    +--------------------+-----------------+------------------+--------------+------------+
    | buckets of 4       | overflow blocks | marks: one byte  | tags: a byte | places for |
    | entries: entry i   | of 16 entries   | a bucket: did it | an entry of  | half-open  |
    | of bucket b: 4b+i  |                 | ever overflow?   | the buckets  | flows      |
    +--------------------+-----------------+------------------+--------------+------------+

A key has two candidate buckets and is put into the emptier one. Its entry's
tag is eight bits of its hash, never 0; that of a free entry is 0: the tags of
two buckets say which entry to read, if any. When both are full, they are
marked, and the key goes to the emptier of two overflow blocks; only keys of
marked buckets are looked for there, and when nothing is left there another
value is a mark. Entries never move: an index is valid while the flow lives.

Capacity is 70 % of the entries in buckets. Up to it no insert fails. Filling
a table to that load overflows 0.4 % of the flows; but flows that come and go
at that load settle at 4.8 %, a little more than half of the overflow area.
All memory together is 99.4 bytes for each flow of the capacity.
"""

from __future__ import annotations

from mmap import mmap
from struct import Struct
from typing import Final

from l4raw.core.entry import ENTRY, HALF_OPEN, SIZE, Entry, Known
from l4raw.core.hashing import KEY, HashKey, flow_hash, mapped, scale, spread, tag, unmapped
from l4raw.core.room import buckets_in, capacity_of, lines, overflow_in, places_at
from l4raw.core.share import Share
from l4raw.wire.abi import FLOW_FREE, FULL, OVERFLOW_SLOTS, SLOTS

_KEY: Final = 37
_STATE: Final = 37
_PEER: Final = 44
_LAST_SEEN: Final = 48
_SEQUENCE: Final = 52
_PACKETS: Final = 60
_VALUES: Final = Struct("=BHHHIIIII")
_U32: Final = Struct("=I")
_WRAP: Final = 0xFFFF_FFFF
_GENERATION: Final = 2
"""The lock word counts generations above its bit 0."""
FIRST_MARK: Final = 1
"""What a bucket's mark is at first; 0 never is one."""
_MARKS_IN_TURN: Final = 255


class FlowTable:
    """A flow table over `buffer`, a bytearray or mmap; zero bytes are an empty table.

    `size`: how many of its bytes, if not all.
    """

    def __init__(self, buffer: bytearray | mmap, hash_key: HashKey, size: int | None = None) -> None:
        self.buffer = buffer
        self.buckets = buckets_in(len(buffer) if size is None else size)
        self.entries = self.buckets * SLOTS
        self.overflow = overflow_in(self.buckets)
        self.capacity = capacity_of(self.buckets)
        self.used = 0
        self.resting = 0
        """How many of them rest."""
        self._swept = 0
        self._overflowed = 0
        self._mark = FIRST_MARK
        self._marks = (self.entries + self.overflow) * SIZE
        self._tags = self._marks + lines(self.buckets)
        self.share = Share(buffer, self._marks + places_at(self.buckets), self.capacity)
        self._hash_key = hash_key

    @property
    def half_open(self) -> int:
        """Half-open flows."""
        return self.share.used

    def hash(self, key: bytes) -> int:
        """The 64 bits by which this 37-byte key is found."""
        return flow_hash(self._hash_key, key)

    def find(self, key: bytes) -> int:
        """Index of the entry with this 37-byte key, or -1."""
        buffer = self.buffer
        value = flow_hash(self._hash_key, key)
        first = (value >> 32) * self.buckets >> 32
        second = (value & _WRAP) * self.buckets >> 32
        wanted, tags = tag(value), self._tags
        for start in (first * SLOTS, second * SLOTS):
            for index in range(start, start + SLOTS):
                if buffer[tags + index] == wanted and buffer[index * SIZE : index * SIZE + _KEY] == key:
                    return index
        if buffer[self._marks + first] == buffer[self._marks + second] == self._mark:
            for start in self._blocks(value):
                for index in range(start, start + OVERFLOW_SLOTS):
                    offset = index * SIZE
                    if buffer[offset : offset + _KEY] == key and buffer[offset + _STATE]:
                        return index
        return -1

    def insert(
        self, key: bytes, state: int, service: int, backend: int, next_hop: int, now: int, place: int = 0
    ) -> int:
        """Add an entry for a key that is not in the table. Its index, or FULL, which is below 0.

        `place`: see share.py. A table that others write too can return TAKEN: one of them was faster.
        """
        if self.used >= self.capacity:
            return FULL
        value = flow_hash(self._hash_key, key)
        first = scale(value >> 32, self.buckets)
        second = scale(value & _WRAP, self.buckets)
        index = self._free_entry((first * SLOTS, second * SLOTS), SLOTS)
        if index < 0:
            index = self._free_entry(self._blocks(value), OVERFLOW_SLOTS)
            if index < 0:
                return FULL
            self.buffer[self._marks + first] = self.buffer[self._marks + second] = self._mark
            self._overflowed += 1
        else:
            self.buffer[self._tags + index] = tag(value)
        generation = self.read(index).lock + _GENERATION & _WRAP
        ENTRY.pack_into(
            self.buffer, index * SIZE, key, state, service, backend, next_hop, 0, now, place, generation, 0
        )
        if place:
            self.share.name(place, index)
        self.used += 1
        return index

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
        """Add both entries of a NAT flow, neither of whose keys is in the table; replies go to `hop`.

        Index of the first, or FULL, and then there is neither. A table that others write too can
        also return TAKEN or REPLY_TAKEN.
        """
        index = self.insert(key, state, service, backend, 0, now, place)
        reply = self.insert(reply_key, state, service, backend, hop, now) if index >= 0 else FULL
        if reply < 0:
            if index >= 0:
                self.delete(index)
            return FULL
        self.link(index, reply)
        return index

    def _free_entry(self, starts: tuple[int, int], count: int) -> int:
        """The first free entry of the emptier of two runs of `count` entries, or -1 if both are full."""
        best, most = -1, 0
        for start in starts:
            states = self.buffer[start * SIZE + _STATE : (start + count) * SIZE : SIZE]
            free = states.count(FLOW_FREE)
            if free > most:
                best, most = start + states.index(FLOW_FREE), free
        return best

    def _blocks(self, value: int) -> tuple[int, int]:
        """The first entries of the two overflow blocks of a key with this hash."""
        value = spread(value)
        blocks = self.overflow // OVERFLOW_SLOTS
        first, second = scale(value >> 32, blocks), scale(value & _WRAP, blocks)
        return self.entries + first * OVERFLOW_SLOTS, self.entries + second * OVERFLOW_SLOTS

    def read(self, index: int) -> Entry:
        """What the entry says, whether it is in use or not."""
        return tuple.__new__(Entry, _VALUES.unpack_from(self.buffer, index * SIZE + _STATE))

    def look_up(self, key: bytes) -> Known | None:
        """The flow with this 37-byte key."""
        index = self.find(key)
        if index < 0:
            return None
        peer = (entry := self.read(index)).peer
        return Known(index, entry, self.ends(peer - 1) if peer else None)

    def is_still(self, known: Known) -> bool:
        """Whether this flow has not gone since it was found, as it can in a table that others write too.

        What a flow names, as its next hop, is read before this is asked: afterwards it may be another's.
        """
        return self.read(known.flow).lock == known.entry.lock

    def key(self, index: int) -> bytes:
        """The 37-byte key of an entry."""
        return bytes(self.buffer[index * SIZE : index * SIZE + _KEY])

    def ends(self, index: int) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
        """Source and destination of an entry's key, each as address and port."""
        src, dst, sport, dport, _ = KEY.unpack_from(self.buffer, index * SIZE)
        return (unmapped(src), sport), (unmapped(dst), dport)

    def link(self, index: int, other: int) -> None:
        """Make two entries the two directions of one flow."""
        _U32.pack_into(self.buffer, index * SIZE + _PEER, other + 1)
        _U32.pack_into(self.buffer, other * SIZE + _PEER, index + 1)

    def note_resting(self, count: int) -> None:
        """How many entries rest now: see resting.py, which knows."""
        self.resting = count

    def touch(self, index: int, was: Entry, state: int, now: int, packets: int, sequence: int = 0) -> None:
        """Note the state, the time in ms, how many frames there were (modulo 2^32), and `sequence`.

        `was` is the entry as it was read. Who is half-open no more gives back its place; others keep it.
        """
        buffer, offset = self.buffer, index * SIZE
        stays = state in HALF_OPEN and not was.next_hop
        if not stays and was.has_place:
            self.share.give_back(was.sequence)
        buffer[offset + _STATE] = state
        _U32.pack_into(buffer, offset + _LAST_SEEN, now)
        if not stays:
            _U32.pack_into(buffer, offset + _SEQUENCE, sequence)
        _U32.pack_into(buffer, offset + _PACKETS, packets & _WRAP)

    @property
    def is_half_empty(self) -> bool:
        """Whether less than half of the capacity is in use."""
        return 2 * self.used < self.capacity

    def renew(self, index: int, lock: int, backend: int, now: int) -> bool:
        """Note a client's choice: see affinity.py. False: the entry is not what it was at `lock`."""
        entry = self.read(index)
        if entry.lock != lock:
            return False
        if entry.backend != backend:
            lock = lock + _GENERATION & _WRAP
        values = entry._replace(backend=backend, last_seen=now, lock=lock)
        _VALUES.pack_into(self.buffer, index * SIZE + _STATE, *values)
        return True

    def sweep(self, budget: int) -> list[int]:
        """Indices in use among the next `budget` entries; call after call goes round the whole table."""
        start = self._swept
        stop = min(start + budget, self.entries + self.overflow)
        self._swept = stop % (self.entries + self.overflow)
        states = self.buffer[start * SIZE + _STATE : stop * SIZE : SIZE]
        return [start + i for i, state in enumerate(states) if state]

    def delete(self, index: int) -> None:
        """Free the entry. The bytes of its key stay and mean nothing any more."""
        if (entry := self.read(index)).state == FLOW_FREE:
            return
        if entry.has_place:
            self.share.give_back(entry.sequence)
        lock = entry.lock + _GENERATION & _WRAP
        _VALUES.pack_into(self.buffer, index * SIZE + _STATE, FLOW_FREE, 0, 0, 0, 0, 0, 0, lock, 0)
        self.used -= 1
        if index < self.entries:
            self.buffer[self._tags + index] = 0
        else:
            self._overflowed -= 1
            if not self._overflowed:  # nothing is there to be found: forget who ever overflowed
                self._mark = self._mark % _MARKS_IN_TURN + 1

    def __len__(self) -> int:
        """Entries in use: one for each DSR flow, two for each NAT flow."""
        return self.used


def flow_key(src: bytes, sport: int, dst: bytes, dport: int, protocol: int) -> bytes:
    """The 37-byte key of a flow; addresses are 4 bytes, or 16."""
    return KEY.pack(mapped(src), mapped(dst), sport, dport, protocol)
