"""What limits count, and turns of schedulers, in tables that the helper's threads write at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from l4raw.core.hashing import HashKey, mapped
from l4raw.core.limits import CLIENTS_SIZE, USAGE, Counts
from l4raw.core.model import Limits
from l4raw.engine import native
from l4raw.engine.layout import Layout
from l4raw.wire.abi import MISS, Verdict


class SharedCounts(Counts):
    """Counts, through the helper."""

    def __init__(self, layout: Layout, hash_key: HashKey, view: Any) -> None:
        sizes, at = layout.sizes, layout.at
        usage = native.ffi.buffer(at["usage"], sizes.services * USAGE.size)
        clients = native.ffi.buffer(at["clients"], sizes.client_buckets * CLIENTS_SIZE)
        super().__init__(hash_key, usage, clients, sizes.client_buckets)
        self._view = view

    def _take(self, service: int, limits: Limits, address: bytes, now: int, more: int) -> Verdict:
        """Limits and time are those of the tables."""
        verdict = native.lib.l4_limit_take(self._view, service, mapped(address), more)
        if verdict == MISS:
            raise RuntimeError(
                "take: a lock of the tables was held for seconds; the thread that has it is stuck"
            )
        return Verdict(verdict)

    def end(self, service: int, address: bytes) -> None:
        """A flow that was counted is gone, or did not come about."""
        if native.lib.l4_limit_end(self._view, service, mapped(address)):
            raise RuntimeError(
                "end: a lock of the tables was held for seconds; the thread that has it is stuck"
            )


class SharedCursors:
    """`Tables.cursors`, in the table. Python's turn and a queue's at one moment can be the same turn."""

    def __init__(self, layout: Layout) -> None:
        self._array, self._count = layout.at["cursors"], layout.sizes.services

    def __getitem__(self, index: int, /) -> int:
        return int(self._array[index])

    def __setitem__(self, index: int, value: int, /) -> None:
        self._array[index] = value

    def __len__(self) -> int:
        return self._count

    def extend(self, values: Iterable[int], /) -> None:
        """All that fit are there from the start, as 0."""
