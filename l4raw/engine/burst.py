"""The compiled module `l4raw._burst`: the loop of one queue (native/src/burst.h).

Lives here: its only import, and one queue as Python sees it: its memory and
its thread. Must not live here: sockets and programs (afxdp.py).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ENOSYS
from pathlib import Path
from typing import Any, Final, NamedTuple

from l4raw.engine import native
from l4raw.wire.abi import BURST
from l4raw.xdp import Accounting, Umem, XskSocket
from l4raw.xdp.frames import FREE, HELD

_REASON_FILE = Path(__file__).resolve().parent.parent / "burst_not_built.txt"
"""Written by setup.py when it could not compile."""

ffi, lib, _STATUS = native.load("l4raw._burst", _REASON_FILE)

RETURNS: Final = 4096
"""Slots of the ring from Python to a queue, a power of two: no fewer than a queue has frames."""
MISSES: Final = 256
"""Of the ring to Python, an eighth of the frames: a flood of misses fills it, and must not take the frames
that known flows are received into. What finds it full is lost (miss_overflow)."""
COUNTERS: Final = (
    "received",
    "sent",
    "passed",
    "misses",
    "miss_overflow",
    "return_dropped",
    "bursts",
    "waits",
)
"""Of `struct l4_worker_counters`."""


def status() -> str:
    """One sentence for a person: "built, ABI 3", or "not built: " and the reason."""
    return _STATUS


def require() -> None:
    """Raises `OSError` (ENOSYS) with the reason when this module, or the helper's, is not there."""
    if not native.available():
        raise OSError(ENOSYS, f"loading the C helper: {native.status()}")
    if lib is None:
        raise OSError(ENOSYS, f"loading the AF_XDP loop: {_STATUS}")


class Missed(NamedTuple):
    """A frame that a queue leaves to Python."""

    address: int
    """Of its first byte in the UMEM."""
    length: int
    arm: int


class Worker:
    """One queue: `struct l4_worker`, what it points to, and its thread."""

    def __init__(
        self,
        view: Any,
        umem: Umem,
        sockets: Sequence[XskSocket],
        frames: Sequence[int],
        wake_python: int,
        sample: bool,
    ) -> None:
        """`frames` are indices of free ones, this queue's from now on; `wake_python` an eventfd. `sample`:
        all frames are left to Python at first. `take_at_most` comes next.
        """
        assert len(frames) <= RETURNS
        self._frames = tuple(frames)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._free = ffi.new("uint32_t[]", list(frames))
        sizes = MISSES, RETURNS
        self._rings = [ffi.new("struct l4_passed[]", size) for size in sizes]
        self._kept = (view, umem, tuple(sockets))
        self._batch = ffi.new("struct l4_passed[]", BURST)
        self._back, self._back_count = ffi.new("struct l4_passed[]", BURST), 0
        self._c = c = ffi.new("struct l4_worker *")
        c.tables = _as("struct l4_tables *", native.ffi, view)
        umem_ffi, _ = umem.ffi_lib
        c.umem = _as("struct lx_umem *", umem_ffi, umem.cdata)
        for arm, socket in enumerate(sockets):
            c.sockets[arm] = _as("struct lx_xsk *", umem_ffi, socket.cdata)
        c.arms = len(sockets)
        c.fill = len(frames) // (2 * len(sockets))
        c.free, c.free_count, c.sample = self._free, len(frames), sample
        for ring, slots, size in zip((c.misses, c.returns), self._rings, sizes, strict=True):
            ring.slots, ring.size = slots, size
        c.wake_python, c.wake_worker = wake_python, self._wake
        self._thread: threading.Thread | None = None

    def start(self, name: str, owner: object) -> None:
        """Run the loop in a thread of its own, which never needs the GIL until it ends.

        The thread keeps `owner` alive, which has the memory that the loop works on.
        """
        self._thread = threading.Thread(target=self._run, args=(owner,), name=name, daemon=True)
        self._thread.start()

    def _run(self, owner: object) -> None:
        lib.l4_run(self._c)
        del owner

    def burst(self, arm: int) -> int:
        """One turn, for tests and lessons: how many frames came in on `arm`. Not while the thread runs."""
        return int(lib.l4_burst(self._c, arm))

    @contextmanager
    def misses(self) -> Iterator[Iterator[Missed]]:
        """Up to a burst of frames for Python. Each that was taken has to be given back; the others are.

        They reach the queue together, when the last one has been given back: a call into C lets go of the
        GIL, and where another thread wants it too, that costs Python more than the call.
        """
        taken = self._batch[0 : lib.l4_take_misses(self._c, self._batch, BURST)]
        frames = (Missed(each.address, each.length, each.arm) for each in taken)
        try:
            yield frames
        finally:
            for left in frames:
                self.give_back(left, None)
            given = lib.l4_give_back(self._c, self._back, self._back_count)
            assert given == self._back_count, "the ring of returns has room for every frame of the queue"
            self._back_count = 0

    def will_wait(self) -> bool:
        """Say that Python is about to wait for `wake_python`; False: something has come meanwhile."""
        return bool(lib.l4_will_wait(self._c) == 0)

    def give_back(self, missed: Missed, arm: int | None) -> None:
        """Send a frame on `arm`, or forget it (None)."""
        back = self._back[self._back_count]
        back.address, back.length = missed.address, missed.length
        back.arm, back.sent = arm or 0, arm is not None
        self._back_count += 1

    def take_at_most(self, most: Sequence[int]) -> None:
        """Bytes of a frame without a tag that each socket's interface takes."""
        self._c.most[0 : len(most)] = list(most)

    def stop_sampling(self) -> None:
        """Decide in C what can be decided there, from the next burst on."""
        self._c.sample = 0

    @property
    def error(self) -> tuple[int, int] | None:
        """The errno that ended the loop, and the number of its socket; None: it was not ended."""
        return (int(self._c.error), int(self._c.error_arm)) if self._c.error else None

    def counters(self) -> dict[str, int]:
        """`struct l4_worker_counters`"""
        return {name: int(getattr(self._c.counters, name)) for name in COUNTERS}

    def accounting(self) -> Accounting:
        """Where this queue's frames are. Exact while nothing moves."""
        _, umem, sockets = self._kept
        state = umem.pool.state
        return Accounting(
            free=sum(state[index] == FREE for index in set(self._free[0 : self._c.free_count])),
            fill=sum(socket.cdata.fill_level for socket in sockets),
            rx=sum(state[index] == HELD for index in self._frames),
            tx=sum(socket.cdata.tx_level for socket in sockets),
            completion=0,  # a part of tx until it is read
        )

    def stop(self) -> None:
        """End the thread. May be called twice."""
        lib.l4_stop(self._c)
        if self._thread:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Give the eventfd back."""
        if self._wake >= 0:
            self._c.wake_worker = -1
            os.close(self._wake)
            self._wake = -1


def _as(kind: str, other_ffi: Any, pointer: Any) -> Any:
    """The same pointer for this module's ffi; both were compiled from one header."""
    return ffi.cast(kind, int(other_ffi.cast("uintptr_t", pointer)))
