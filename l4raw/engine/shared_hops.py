"""The next hops that the helper's threads and Python use at the same time: see shared.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from l4raw.core.next_hops import NextHops
from l4raw.engine import native
from l4raw.engine.layout import Layout
from l4raw.wire.abi import BUSY


def held(what: str) -> RuntimeError:
    """A lock of the tables that is not given back."""
    return RuntimeError(f"{what}: a lock of the tables was held for seconds; the thread that has it is stuck")


_Field = TypeVar("_Field")


class _Hops(Sequence[_Field]):
    """One field of all hops, read out of the table as a list would be."""

    def __init__(self, layout: Layout, field: Callable[[Any], _Field]) -> None:
        self._hops, self._control, self._field = layout.at["next_hops"], layout.control, field

    @overload
    def __getitem__(self, index: int) -> _Field: ...
    @overload
    def __getitem__(self, index: slice) -> list[_Field]: ...
    def __getitem__(self, index: int | slice) -> _Field | list[_Field]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._field(self._hops[index])

    def __len__(self) -> int:
        return int(self._control.hop_count) + 1


def _mac(hop: Any) -> bytes | None:
    """Of one moment: the first 8 bytes are read at once, as they are written."""
    word = native.ffi.cast("uint64_t *", native.ffi.addressof(hop))[0]
    where = word.to_bytes(8, sys.byteorder)
    return where[:6] if where[7] else None


def _arm(hop: Any) -> int:
    return int(hop.arm)


class SharedNextHops(NextHops):
    """The next hops, through the helper."""

    def __init__(self, layout: Layout, view: Any) -> None:
        super().__init__(layout.sizes.next_hops)
        self._hops, self._control, self._view = layout.at["next_hops"], layout.control, view
        self.macs = _Hops(layout, _mac)
        self.arms = _Hops(layout, _arm)

    def pin(self, arm: int, mac: bytes | None = None) -> int:
        """A hop that stays. Raises `OverflowError` when the table is full: a set-up error, not a frame's."""
        index: int = native.lib.l4_hop_pin(self._view, arm, native.ffi.NULL if mac is None else mac)
        if index == BUSY:
            raise held("pin")
        if not index:
            raise OverflowError(f"more than {self._limit} next hops")
        return index

    def set_mac(self, index: int, mac: bytes | None) -> None:
        """What is now known of a pinned hop; None: its address no longer resolves."""
        native.lib.l4_hop_set(self._view, index, native.ffi.NULL if mac is None else mac)

    def learn(self, arm: int, mac: bytes) -> int:
        """The hop for a client behind `arm`, with one reference more; 0 when the table is full."""
        index: int = native.lib.l4_hop_learn(self._view, arm, mac)
        if index == BUSY:
            raise held("learn")
        return index

    def release(self, index: int) -> None:
        """Give back a reference of `learn`; the last one frees the hop."""
        if native.lib.l4_hop_release(self._view, index) == BUSY:
            raise held("release")

    def references(self, index: int) -> int:
        """Flows that learned this hop; 0 for a pinned one."""
        return int(self._hops[index].references)

    def __len__(self) -> int:
        return int(self._control.hop_count - self._control.hop_freed)
