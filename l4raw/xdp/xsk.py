"""AF_XDP sockets: one RX queue of one interface each, on a UMEM.

Lives here: opening, and the four rings a burst at a time. Must not live here:
who has a frame (frames.py), the order of closing (umem.py).

The rings are af_xdp.rst's: fill and RX for receiving, TX and completion for
sending. A frame received by one socket can be sent by another on the same
UMEM without a copy in this process.
"""

from __future__ import annotations

import select
import warnings
from collections.abc import Sequence
from errno import EINVAL
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from l4raw.xdp import host
from l4raw.xdp.errors import FrameError, Operation, XdpError
from l4raw.xdp.frames import Frame

if TYPE_CHECKING:
    from l4raw.xdp.umem import Umem

REBIND_S: Final = 1.0
"""The kernel frees a queue 11 to 15 ms after its socket closed, later on a busy machine."""
BURST: Final = 64


class Statistics(NamedTuple):
    """XDP_STATISTICS (af_xdp.rst), in frames since the socket was bound. Names are the kernel's."""

    rx_dropped: int
    """For reasons other than an invalid descriptor: too long for a chunk, for instance."""
    rx_invalid_descs: int
    tx_invalid_descs: int
    rx_ring_full: int
    """Lost because receive() was not called soon enough."""
    rx_fill_ring_empty_descs: int
    """Lost because no frame was in the fill ring."""
    tx_ring_empty_descs: int
    """No loss: how often the kernel looked for a frame to send and found none."""


class Rings(NamedTuple):
    """Pointers into the socket for a loop in C: `struct xsk_ring_cons *` and `xsk_ring_prod *` of libxdp.

    While such a loop runs, no method of the socket may. It keeps the states
    and levels of native/xdp/xsk.h right, or the accounting is wrong.
    """

    rx: Any
    tx: Any
    fill: Any
    completion: Any


class XskSocket:
    """An AF_XDP socket. A context manager; it ends with its UMEM at the latest.

    `interface` is looked up in the network namespace of this thread and stays
    in it. `queue`: of its RX queues, from 0; the socket sees no other.
    `rx`, `tx`: ring sizes, powers of two; 0 for a socket that only sends or
    only receives. `fill`: how many frames it lets the kernel have for
    receiving; unless given `rx`, but at most half of the UMEM. `copy`: None lets the kernel choose, True and
    False insist on copy and on zero-copy mode; the first socket of a UMEM
    decides for all. `timeout`: seconds to wait for a queue that is in use.

    Raises ValueError for numbers that cannot be; `XdpError` EBUSY when another
    socket has the queue, EINVAL when there is no such queue, ENODEV when there is
    no such interface, EOPNOTSUPP for zero-copy mode that the driver lacks,
    ENOBUFS when the UMEM has to be registered again and is above RLIMIT_MEMLOCK.

    No frame arrives before an XDP program redirects to the socket: `XskMap`.
    """

    def __init__(
        self,
        umem: Umem,
        interface: str,
        queue: int = 0,
        *,
        copy: bool | None = None,
        rx: int = 512,
        tx: int = 512,
        fill: int | None = None,
        timeout: float = REBIND_S,
    ) -> None:
        self._closed = True
        _check_sizes(rx, tx)
        self.umem = umem
        self.interface = interface
        self.queue = queue
        self._fill = min(rx, -(-umem.frames // 2)) if fill is None else min(fill, umem.frames)
        self._ffi, self._lib = umem.ffi_lib
        self._place = (host.namespace(), host.index(interface), queue)
        self._refuse_twice()
        flags = self._lib.LX_BIND_NEED_WAKEUP
        if copy is not None and not umem.sockets:
            flags |= self._lib.LX_BIND_COPY if copy else self._lib.LX_BIND_ZEROCOPY

        def open_it(cdata: Any) -> int:
            name = interface.encode()
            return int(self._lib.lx_xsk_open(umem.cdata, cdata, name, queue, rx, tx, flags))

        self._c, error = umem.adopt(self, open_it, timeout)
        if error:
            raise host.failure(error, Operation.BIND, interface, queue)
        self._closed = False
        self._error = 0
        self._frames = self._ffi.new("struct lx_frame[]", max(rx, tx))
        self._indices = self._ffi.new("uint32_t[]", umem.frames)
        self._poll = select.poll()
        self._poll.register(self._c.fd, select.POLLIN)
        if copy is not None and copy == self.zero_copy:
            self.close()
            cause = f"the first socket of the UMEM decided for {'copy' if not copy else 'zero-copy'} mode"
            raise XdpError(EINVAL, Operation.BIND, interface=interface, queue=queue, cause=cause)
        if rx:
            self.refill()

    @property
    def cdata(self) -> Any:
        """`struct lx_xsk *` (native/xdp/xsk.h), for a loop in C."""
        return self._c

    @property
    def rings(self) -> Rings:
        """Pointers to the rings; NULL for one that the socket does not have. Raises when it is closed."""
        self._check_open()
        found = self._c.rings
        return Rings(found.rx, found.tx, found.fill, found.completion)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    @property
    def zero_copy(self) -> bool:
        """The mode that the kernel gave (XDP_OPTIONS): True for zero-copy, False for copy."""
        return self._checked(self._lib.lx_xsk_is_zero_copy(self._open()), Operation.BIND) == 1

    @property
    def mode(self) -> str:
        """The same as a word: "zero-copy" or "copy"."""
        return "zero-copy" if self.zero_copy else "copy"

    def fileno(self) -> int:
        """The descriptor, for poll(2) and for an XSKMAP; -1 when closed."""
        return -1 if self._closed else int(self._c.fd)

    def receive(self, most: int = BURST) -> list[Frame]:
        """Up to `most` frames that have arrived, in their order; then refill(). Never waits.

        The caller holds them until they are sent or released.
        """
        c = self._open()
        if self._c.rings.rx == self._ffi.NULL:
            raise ValueError("this socket has no RX ring (rx=0)")
        count = self._lib.lx_xsk_receive(c, self._frames, min(most, len(self._frames)))
        found = [Frame(self.umem, each.address, each.length) for each in self._frames[0:count]]
        self.refill()
        return found

    def send(self, frames: Sequence[Frame]) -> int:
        """Hand frames to the kernel, in their order, after reclaim(); how many fitted into the TX ring.

        Never waits. Those that did not fit stay with the caller: drop them
        (release) or try again. Raises FrameError, and sends none, when one is
        not held or is there twice; `XdpError` when the interface has gone.
        """
        c = self._open()
        if self._c.rings.tx == self._ffi.NULL:
            raise ValueError("this socket has no TX ring (tx=0)")
        self.reclaim()
        frames = frames[: len(self._frames)]
        for place, frame in zip(self._frames, frames, strict=False):
            if frame.memory is not self.umem:
                raise FrameError(f"frame {frame.index} belongs to another UMEM")
            place.address, place.length = frame.address, len(frame.data)
        count = self._lib.lx_xsk_send(c, self._frames, len(frames))
        if count < 0:
            raise FrameError(f"{frames[-1 - count]} may not be sent: not held, or there twice")
        for frame in frames[:count]:
            frame.gone()
        self.wakeup()
        return int(count)

    def reclaim(self) -> int:
        """wakeup(), then free the frames of the completion ring; how many. That is no proof of arrival."""
        self.wakeup()
        count = self._lib.lx_xsk_reclaim(self._open(), self._indices, self.umem.frames)
        self.umem.pool.push(self._indices[0:count])
        return int(count)

    def refill(self) -> int:
        """Put free frames into the fill ring until the kernel has `fill` of them; how many."""
        c = self._open()
        wanted = self._fill - c.fill_level
        if wanted <= 0:
            return 0
        if self.umem.pool.free < wanted:
            self.reclaim()
        indices = self.umem.pool.pop(wanted)
        self._indices[0 : len(indices)] = indices
        count = int(self._lib.lx_xsk_refill(c, self._indices, len(indices)))
        self.umem.pool.push(indices[count:])
        return count

    def wakeup(self) -> int:
        """Let the kernel send what is in the TX ring, where it asks for that (need_wakeup).

        How many frames the driver refused (no carrier, a full peer): lost. Raises `XdpError`: no interface.
        """
        c = self._open()
        if c.rings.tx == self._ffi.NULL:
            return 0
        return self._checked(self._lib.lx_xsk_wakeup(c), Operation.SEND)

    def wait(self, timeout: float) -> bool:
        """Whether a frame has arrived, at the latest after `timeout` seconds. poll(2).

        Raises `XdpError` ENETDOWN, not before that time, when the interface has gone.
        """
        c = self._open()
        if self._poll.poll(timeout * 1000):
            return True
        # The kernel does not wake a poll when the interface goes; it only leaves an error, to be read once.
        self._error = self._error or int(self._lib.lx_xsk_error(c))
        self._checked(self._error, Operation.WAIT)
        return False

    def statistics(self) -> Statistics:
        """The kernel's counters."""
        found = self._ffi.new("struct lx_xsk_statistics *")
        self._checked(self._lib.lx_xsk_statistics(self._open(), found), Operation.WAIT)
        return Statistics(*(getattr(found, name) for name in Statistics._fields))

    def close(self) -> None:
        """Close it and free the frames that the kernel had of it. May be called twice.

        The first socket of a UMEM keeps its queue, and those frames, until the
        last other one is closed. Frames that the caller holds stay held.
        """
        if self._closed:
            return
        self._closed = True
        self.umem.dismiss(self)

    def _refuse_twice(self) -> None:
        """libxdp would take it for a second socket on the same rings."""
        if any(other.place == self._place for other in self.umem.sockets):
            cause = "this UMEM has a socket on this queue already, or the queue of a closed first socket"
            raise XdpError(EINVAL, Operation.BIND, interface=self.interface, queue=self.queue, cause=cause)

    @property
    def place(self) -> tuple[int, int, int]:
        """Network namespace, index of the interface, queue."""
        return self._place

    def _open(self) -> Any:
        self._check_open()
        return self._c

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the socket is closed")

    def _checked(self, result: int, operation: Operation) -> int:
        if result < 0:
            raise host.failure(-result, operation, self.interface, self.queue)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else self.mode
        return f"<XskSocket {self.interface}, queue {self.queue}: {state}>"


def _check_sizes(rx: int, tx: int) -> None:
    for name, size in (("rx", rx), ("tx", tx)):
        if size < 0 or size & (size - 1) or size > 1 << 16:
            raise ValueError(f"{name} {size}: a power of two up to 65536, or 0")
    if not rx and not tx:
        raise ValueError("a socket needs an RX or a TX ring")
