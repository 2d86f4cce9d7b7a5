"""Tables, written to a file as the fuzzer's C reads them: see tests/fuzz/world.c."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from struct import pack
from typing import Any

from l4raw.core.hashing import HashKey
from l4raw.core.tables import Arm, Policy
from l4raw.engine import native
from l4raw.engine.layout import Sizes
from l4raw.engine.memory import Memory
from l4raw.engine.shared import SharedTables
from tests.noise import make_policies, make_world
from tests.tables import SLOTS

FLOW_MEMORY = 4096
"""Some 40 flows of DSR: one input can fill it."""
PATH_MTU = 1281
"""Of every other tunnel, in bytes."""
CONSTANT = ("policies", "places", "services", "backends", "rings", "ranges", "snats")
"""What a policy writes, and nobody else."""


class Recorded:
    """Tables whose memory is known block by block."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        """The last two of `policies` are in the two halves; the last one is in force."""
        self.blocks: dict[str, bytearray] = {}
        tables = make_world(self._make)
        assert isinstance(tables, SharedTables)
        self.tables = tables
        for policy in policies:
            tables.install(policy)
            for ends in list(policy.tunnels)[::2]:
                tables.path_is(ends, PATH_MTU)

    def _allocate(self, name: str, size: int) -> Memory:
        self.blocks[name] = bytearray(size)
        return self.blocks[name]

    def _make(self, arms: tuple[Arm, ...], key: HashKey, memory: int, hops: int) -> SharedTables:
        sizes = Sizes(FLOW_MEMORY, ring_slots=SLOTS, next_hops=hops, backends=160, addresses=160)
        return SharedTables(arms, key, sizes, self._allocate)

    def image(self) -> bytes:
        """The bytes of the file."""
        ffi, view = native.ffi, self.tables.view(0)
        names, pointers = list(self.blocks), b""
        starts = [int(ffi.cast("uintptr_t", ffi.from_buffer(each))) for each in self.blocks.values()]
        fields: Any = ffi.typeof("struct l4_tables").fields
        for name, field in fields:
            if field.type.kind != "pointer":
                continue
            address = int(ffi.cast("uintptr_t", getattr(view, name)))
            block = max((s, i) for i, s in enumerate(starts) if s <= address)[1]
            assert address - starts[block] < len(self.blocks[names[block]]), f"{name} points nowhere"
            pointers += pack("=QQQ", field.offset, block, address - starts[block])
        whole = bytes(ffi.buffer(view))
        parts = [pack("=IIII", len(names), len(pointers) // 24, len(whole), 0), whole]
        for name, memory in self.blocks.items():
            parts += [pack("=QQ", len(memory), name in CONSTANT), bytes(memory)]
        return b"".join([*parts, pointers])


def write_worlds(folder: Path) -> list[Path]:
    """Write a file for each policy that can replace the first one. Their paths."""
    first, *others = make_policies()
    paths = []
    for number, other in enumerate(others):
        paths.append(folder / f"world-{number}")
        paths[-1].write_bytes(Recorded([first, other, first]).image())
    return paths
