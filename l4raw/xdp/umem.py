"""The UMEM: memory that the kernel and this process share, in chunks of one frame each.

Lives here: its registration, its frames, and the order in which sockets on it
are closed. Must not live here: rings (xsk.py).

libxdp makes the UMEM's own descriptor that of the first socket. So the first
socket's queue is free again only when the last socket closes; with the last
one the registration goes, and comes back with the next. And since a
descriptor belongs to a network namespace, a UMEM that was made in another one
than its first socket is registered again: else that socket would be bound to
the interface that has this index over there.
"""

from __future__ import annotations

import mmap
import time
import warnings
from collections.abc import Callable, Iterable
from errno import EBUSY, ENOBUFS
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from l4raw.xdp import host
from l4raw.xdp.errors import FrameError, Operation
from l4raw.xdp.frames import HELD, Accounting, Frame, FramePool
from l4raw.xdp.native import require

if TYPE_CHECKING:
    from l4raw.xdp.xsk import XskSocket

SMALLEST_CHUNK: Final = 2048
RECEIVED_AT: Final = 256
"""XDP_PACKET_HEADROOM: the kernel leaves as many bytes of a chunk free in front of a received frame."""
MOST_SOCKETS: Final = 256
RETRY_S: Final = 0.002
REGISTRATION_S: Final = 0.5
"""For how long a registration is tried again: pages of a closed UMEM stay charged for some milliseconds."""


class Umem:
    """Memory for frames, registered with the kernel. A context manager.

    `frames`: how many. `frame_size`: of a chunk in bytes, a power of two from
    2048 to the page size; a received frame can have 256 + `headroom` bytes
    less. `headroom`: further bytes to leave free in front of a received frame.

    Raises ValueError for numbers that cannot be; `XdpError` ENOBUFS when the
    memory is above RLIMIT_MEMLOCK, EPERM without CAP_NET_RAW, ENOSYS when the
    compiled part is missing. Kernel: af_xdp.rst, "UMEM", XDP_UMEM_REG.
    """

    def __init__(self, frames: int = 2048, frame_size: int = 2048, headroom: int = 0) -> None:
        self._closed = True
        if not SMALLEST_CHUNK <= frame_size <= mmap.PAGESIZE or frame_size & (frame_size - 1):
            limits = f"{SMALLEST_CHUNK} to {mmap.PAGESIZE}"
            raise ValueError(f"frame_size {frame_size}: a power of two from {limits}")
        if not 1 <= frames < 1 << 24:
            raise ValueError(f"frames {frames}: 1 to {(1 << 24) - 1}")
        if not 0 <= headroom <= frame_size // 2 - RECEIVED_AT:
            raise ValueError(f"headroom {headroom}: 0 to {frame_size // 2 - RECEIVED_AT}")
        self._ffi, self._lib = require()
        self.frames = frames
        self.frame_size = frame_size
        self.headroom = headroom
        self.pool = FramePool(frames)
        self._sockets: list[XskSocket] = []
        self._namespace = 0
        """Where it was registered: the inode number of the network namespace."""
        self._first: Any = None
        """`struct lx_xsk` that was registered with the UMEM, until a socket takes it."""
        self._memory = mmap.mmap(-1, -(-frames * frame_size // mmap.PAGESIZE) * mmap.PAGESIZE)
        self.buffer = memoryview(self._memory)[: frames * frame_size]
        """All of it."""
        shared = (self._memory, self.pool.state, self.pool.owner)
        self._pinned = [self._ffi.from_buffer(each) for each in shared]
        area, state, owner = self._pinned
        self._c = self._ffi.new("struct lx_umem *")
        self._c.area, self._c.state, self._c.owner = area, state, owner
        self._c.frames, self._c.frame_size, self._c.headroom = frames, frame_size, headroom
        self._c.ring_size = 1 << (frames - 1).bit_length() if frames > 1 else 2
        self._closed = False
        try:
            self._register()
        except BaseException:
            self.close()
            raise

    @property
    def cdata(self) -> Any:
        """`struct lx_umem *` (native/xdp/xsk.h), for a loop in C."""
        return self._c

    @property
    def ffi_lib(self) -> tuple[Any, Any]:
        """cffi's `ffi` and `lib` of the compiled part."""
        return self._ffi, self._lib

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    @property
    def sockets(self) -> tuple[XskSocket, ...]:
        """Those that still have a queue, in the order of their opening."""
        return tuple(self._sockets)

    def view(self, address: int, length: int) -> memoryview:
        """`length` bytes from `address`, counted from the start of the UMEM."""
        return self.buffer[address : address + length]

    def alloc(self, count: int) -> list[Frame]:
        """Up to `count` free frames, each as long as a received one can be.

        Where too few are free, every socket's completion ring is read first.
        """
        self._check_open()
        if self.pool.free < count:
            for socket in self._sockets:
                if not socket.closed:
                    socket.reclaim()
        offset = RECEIVED_AT + self.headroom
        length = self.frame_size - offset
        return [Frame(self, i * self.frame_size + offset, length) for i in self.pool.hold(count)]

    def free(self, frames: Iterable[Frame]) -> None:
        """Give frames back without sending them. Raises FrameError for one of another UMEM or not held."""
        for frame in frames:
            if frame.memory is not self:
                raise FrameError(f"frame {frame.index} belongs to another UMEM")
            frame.release()

    def accounting(self) -> Accounting:
        """Where the frames are: the free list, the rings' counters and the states are three witnesses."""
        sockets = [socket.cdata for socket in self._sockets]
        completion = sum(self._lib.lx_xsk_completed(socket) for socket in sockets)
        return Accounting(
            free=self.pool.free,
            fill=sum(socket.fill_level for socket in sockets),
            rx=self.pool.count(HELD),
            tx=sum(socket.tx_level for socket in sockets) - completion,
            completion=completion,
        )

    def check(self) -> Accounting:
        """Return the accounting. Raises FrameError when its witnesses disagree: a leak, or a frame twice."""
        found = self.accounting()
        faults = self.pool.faults()
        faults += [
            f"{socket.interface}, queue {socket.queue}: {socket.cdata.stray} frames were not with the kernel"
            for socket in self._sockets
            if socket.cdata.stray
        ]
        if sum(found) != self.frames:
            faults.append(f"{sum(found)} of {self.frames} frames are accounted for")
        if faults:
            raise FrameError(f"{'; '.join(faults)} ({found})")
        return found

    def close(self) -> None:
        """Close the sockets, the last opened first, then the UMEM. May be called twice.

        Frames that the caller still holds stay readable: the memory itself
        goes when the last view of it does.
        """
        if self._closed:
            return
        self._closed = True
        for socket in reversed(self._sockets.copy()):
            socket.close()
        self._unregister()
        for pinned in self._pinned:
            self._ffi.release(pinned)
        try:
            self.buffer.release()
            self._memory.close()
        except BufferError:  # frames that the caller holds, or his views of the whole
            pass

    def adopt(self, socket: XskSocket, open_it: Callable[[Any], int], timeout: float) -> tuple[Any, int]:
        """For XskSocket: open it, again and again for `timeout` seconds while its queue is busy.

        Returns its `struct lx_xsk *` and 0 or an errno.
        """
        self._check_open()
        if not self._sockets and self._namespace != host.namespace():
            self._unregister()
        if self._c.handle == self._ffi.NULL:
            self._register()
        used = {other.cdata.number for other in self._sockets}
        if len(used) == MOST_SOCKETS:
            raise ValueError(f"a UMEM has at most {MOST_SOCKETS} sockets")
        cdata = self._first if not self._sockets else self._ffi.new("struct lx_xsk *")
        cdata.number = min(set(range(MOST_SOCKETS)) - used)
        error = _again(lambda: open_it(cdata), EBUSY, timeout)
        if not error:
            self._sockets.append(socket)
        elif not self._sockets:
            # libxdp prepared its rings for sizes that the next socket may not have.
            self._unregister()
        return cdata, error

    def dismiss(self, socket: XskSocket) -> None:
        """For XskSocket: close it now, or, if it is the first, with the last."""
        if socket is self._sockets[0] and any(not other.closed for other in self._sockets[1:]):
            return
        closed = [socket]
        if socket is not self._sockets[0] and self._sockets[0].closed and len(self._sockets) == 2:
            closed.append(self._sockets[0])
        for each in closed:
            number = each.cdata.number
            self._lib.lx_xsk_close(each.cdata)
            self._sockets.remove(each)
            self.pool.abandon(number)
        if not self._sockets:
            self._unregister()

    def _register(self) -> None:
        self._first = self._ffi.new("struct lx_xsk *")
        self._namespace = host.namespace()
        error = _again(lambda: int(self._lib.lx_umem_register(self._c, self._first)), ENOBUFS, REGISTRATION_S)
        if error:
            self._c.handle = self._ffi.NULL
            raise host.failure(error, Operation.REGISTER, umem_bytes=self.frames * self.frame_size)

    def _unregister(self) -> None:
        if self._c.handle != self._ffi.NULL:
            self._lib.lx_umem_unregister(self._c)
        self._first = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the UMEM is closed")

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
        return f"<Umem {self.frames} x {self.frame_size} bytes, {len(self._sockets)} sockets>"


def _again(call: Callable[[], int], busy: int, timeout: float) -> int:
    """Repeat `call` while it returns -`busy`, for at most `timeout` seconds. Returns 0 or an errno."""
    deadline = time.monotonic() + timeout
    while (result := call()) == -busy and time.monotonic() < deadline:
        time.sleep(RETRY_S)
    return -result
