"""Frames in asyncio.

Lives here: waiting for a socket in an event loop. Must not live here:
anything that works without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from l4raw.xdp.xsk import BURST

if TYPE_CHECKING:
    from l4raw.xdp.frames import Frame
    from l4raw.xdp.xsk import XskSocket

LOOK_AGAIN_S: Final = 1.0


async def aframes(socket: XskSocket, most: int = BURST) -> AsyncGenerator[Frame, None]:
    """Frames as they arrive, until the socket is closed or the loop is left: `async for frame in aframes(s)`.

    The caller holds each frame until it sends or releases it; those of the
    burst that it has not taken are released when the generator is closed.
    Cancel what waits here before you close the socket. Raises `XdpError`
    ENETDOWN when the interface has gone.
    """
    taken: list[Frame] = []
    try:
        while not socket.closed:
            taken = socket.receive(most)
            taken.reverse()
            while taken:
                yield taken.pop()
            if not socket.closed and not socket.wait(0):
                await _readable(socket)
    finally:
        for frame in taken:
            frame.release()


async def _readable(socket: XskSocket) -> None:
    """Return when poll(2) would, or to look whether the interface is still there."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    descriptor = socket.fileno()
    loop.add_reader(descriptor, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), LOOK_AGAIN_S)
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(descriptor)
