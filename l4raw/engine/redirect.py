"""The redirect program (native/bpf/redirect.bpf.c) and the tables that it shares with the helper.

Lives here: which tables are maps of the program, and the meaning of its other
maps. Must not live here: sockets, threads (afxdp.py).
"""

from __future__ import annotations

import struct
from typing import Final

from l4raw.engine.layout import Sizes
from l4raw.engine.memory import Memory, anonymous
from l4raw.wire.abi import HALVES, PROBES
from l4raw.xdp import XdpLink, XdpProgram, XskMap, XskSocket
from l4raw.xdp.native import bpf_object

QUEUES: Final = 64
"""As in the program: sockets of arm a begin at a * QUEUES."""
_FLOW: Final = 64
_MAPS: Final = {"control": ".data.control", "flows": "flows", "policies": "policies", "places": "places"}
"""Table and map. All other tables are not the kernel's business."""


class Redirect:
    """The program, loaded; attached by `attach`."""

    def __init__(self, sizes: Sizes) -> None:
        """Raises `XdpError` when the kernel refuses it, or it was not compiled."""
        places = HALVES * (sizes.places + PROBES - 1)
        entries = {"flows": -(-sizes.flow_memory // _FLOW), "places": places}
        self._program = XdpProgram(bpf_object("redirect"), "l4raw_redirect", entries)
        self._maps = self._program.maps
        self._links: list[XdpLink] = []

    def allocate(self, name: str, size: int) -> Memory:
        """Memory for a table; see l4raw/engine/memory.py."""
        return self._maps[_MAPS[name]].mapping(size) if name in _MAPS else anonymous(name, size)

    def redirect_to(self, arm: int, socket: XskSocket) -> None:
        """What arrives on the socket's queue goes to it from now on, if the tables say so."""
        xsks = self._maps["xsks"]
        assert isinstance(xsks, XskMap)
        xsks.update(arm * QUEUES + socket.queue, socket)

    def attach(self, arm: int, interface: str, index: int) -> None:
        """Attach in native mode, by a link that ends with this process. Raises `XdpError`."""
        self._maps["interfaces"].put(struct.pack("=I", arm), struct.pack("=I", index))
        self._links.append(self._program.attach(interface, "native"))

    def detach(self) -> None:
        """Take the program off all interfaces. May be called twice."""
        while self._links:
            self._links.pop().close()

    def close(self) -> None:
        """Detach and close. The tables stay, for whoever holds them."""
        self.detach()
        self._program.close()
