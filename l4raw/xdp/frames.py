"""Who has which frame of a UMEM.

Lives here: `FramePool`, one byte of state a frame and the list of free ones;
`Frame`, a frame in the hands of the caller. Must not live here: a ring. The
compiled part changes the same bytes (native/xdp/xsk.h has the drawing's arrows);
nothing here needs it.

            alloc                      send
    FREE ----------> HELD ----------------------------> TX (TX ring, then
      ^   release      ^                                 |  completion ring)
      +----------------+--- receive --- FILL <-- refill -+-- FREE <-- reclaim
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from l4raw.xdp.errors import FrameError

FREE: Final = 0
HELD: Final = 1
FILL: Final = 2
TX: Final = 3
"""States, as `enum lx_frame_state`."""


class Accounting(NamedTuple):
    """Where the frames of a UMEM are, in frames. The sum is the number of frames, or something leaks."""

    free: int
    """In no ring, and with nobody."""
    fill: int
    """With the kernel for receiving: in a fill ring, or filled and waiting in an RX ring."""
    rx: int
    """Held by the caller: received, or allocated."""
    tx: int
    """With the kernel for sending."""
    completion: int
    """Sent, and waiting in a completion ring for `reclaim()`."""


class FramePool:
    """The states of all frames, and the free ones. Frames are numbered from 0."""

    def __init__(self, frames: int) -> None:
        self.state = bytearray(frames)
        self.owner = bytearray(frames)
        """The number of the socket that has it, in FILL and TX."""
        self._free = list(range(frames - 1, -1, -1))

    @property
    def free(self) -> int:
        """How many are free."""
        return len(self._free)

    def pop(self, most: int) -> list[int]:
        """Take up to `most` off the free list; the caller changes their state, or pushes them back."""
        start = max(0, len(self._free) - most)
        taken = self._free[start:]
        del self._free[start:]
        return taken

    def push(self, indices: Iterable[int]) -> None:
        """Put frames that are in state FREE on the free list. Raises FrameError for another."""
        for index in indices:
            if self.state[index] != FREE:
                raise FrameError(f"frame {index} is not free: state {self.state[index]}")
            self._free.append(index)

    def hold(self, most: int) -> list[int]:
        """FREE -> HELD for up to `most` frames."""
        taken = self.pop(most)
        for index in taken:
            self.state[index] = HELD
        return taken

    def release(self, index: int) -> None:
        """HELD -> FREE. Raises FrameError when it is elsewhere."""
        if self.state[index] != HELD:
            raise FrameError(f"frame {index} is not held: state {self.state[index]}")
        self.state[index] = FREE
        self._free.append(index)

    def abandon(self, owner: int) -> int:
        """FILL and TX -> FREE for the frames of a socket that was closed; how many."""
        found = [
            index
            for index, state in enumerate(self.state)
            if state in (FILL, TX) and self.owner[index] == owner
        ]
        for index in found:
            self.state[index] = FREE
        self.push(found)
        return len(found)

    def count(self, state: int) -> int:
        """How many frames are in a state."""
        return self.state.count(state)

    def faults(self) -> list[str]:
        """What contradicts itself between states and free list; empty when all is well."""
        found = []
        if len(set(self._free)) != len(self._free):
            found.append("a frame is on the free list twice")
        wrong = [index for index in self._free if self.state[index] != FREE]
        if wrong:
            found.append(f"on the free list, but in use: {wrong}")
        if not wrong and self.count(FREE) != len(self._free):
            found.append(f"{self.count(FREE)} frames are free, {len(self._free)} are on the free list")
        return found


class Memory(Protocol):
    """What a Frame needs of its UMEM."""

    @property
    def frame_size(self) -> int: ...

    @property
    def pool(self) -> FramePool: ...

    def view(self, address: int, length: int) -> memoryview: ...


class Frame:
    """A frame that the caller holds, until it is sent or released.

    `data` is the frame itself, in the UMEM, from the destination MAC on;
    writing to it changes the frame. Once it is given away, `data` raises
    FrameError; slices that were taken of it before must not be used.
    """

    __slots__ = ("_data", "_memory", "address")

    def __init__(self, memory: Memory, address: int, length: int) -> None:
        self._memory = memory
        self._data: memoryview | None = memory.view(address, length)
        self.address = address
        """Of the first byte, in bytes from the start of the UMEM."""

    @property
    def data(self) -> memoryview:
        """The bytes. Raises FrameError when the frame was sent or released."""
        if self._data is None:
            raise FrameError(f"frame {self.index} was sent or released")
        return self._data

    @property
    def index(self) -> int:
        """Number of the chunk."""
        return self.address // self._memory.frame_size

    @property
    def offset(self) -> int:
        """Of the first byte, in its chunk: what is in front of it is room for more headers."""
        return self.address % self._memory.frame_size

    @property
    def memory(self) -> Memory:
        """The UMEM it belongs to."""
        return self._memory

    def move(self, offset: int, length: int) -> memoryview:
        """Let the frame be `length` bytes from `offset` of its chunk; returns `data`.

        To add a header: `frame.move(frame.offset - 20, len(frame) + 20)`.
        Raises ValueError when that is not inside the chunk, FrameError when
        the frame was given away.
        """
        self.data  # noqa: B018 - raises when it was given away
        if offset < 0 or length < 1 or offset + length > self._memory.frame_size:
            raise ValueError(
                f"{length} bytes from {offset} are not in a chunk of {self._memory.frame_size} bytes"
            )
        self.address += offset - self.offset
        self._data = self._memory.view(self.address, length)
        return self._data

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Make `content` the frame, from where it starts now. Raises as `move` does."""
        self.move(self.offset, len(content))[:] = content

    def release(self) -> None:
        """Give it back to the UMEM's free frames. Raises FrameError when it was given away before."""
        self.data  # noqa: B018 - raises when it was given away
        self._memory.pool.release(self.index)
        self.gone()

    def gone(self) -> None:
        """Called when the frame was given away."""
        if self._data is not None:
            self._data.release()
        self._data = None

    def __len__(self) -> int:
        return len(self.data)

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    def __repr__(self) -> str:
        state = "given away" if self._data is None else f"{len(self._data)} bytes"
        return f"<Frame {self.index}: {state}>"
