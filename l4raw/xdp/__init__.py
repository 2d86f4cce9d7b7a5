"""AF_XDP for Python: UMEM, sockets, XDP programs, over libxdp and libbpf.

Usable on its own: nothing else of l4raw is imported here. docs/xdp.md explains
it with an example. Words and rules are those of the kernel's document,
Documentation/networking/af_xdp.rst.

One thread at a time for a `Umem` and the sockets on it: its rings have a
single producer and a single consumer.
"""

from __future__ import annotations

from l4raw.xdp.errors import FrameError, XdpError
from l4raw.xdp.frames import Accounting, Frame
from l4raw.xdp.link import XdpLink
from l4raw.xdp.maps import BpfMap, XskMap
from l4raw.xdp.native import available, status
from l4raw.xdp.pass_to_socket import PassToSocket
from l4raw.xdp.program import Ran, XdpProgram
from l4raw.xdp.stream import aframes
from l4raw.xdp.umem import Umem
from l4raw.xdp.xsk import Rings, Statistics, XskSocket

__all__ = [
    "Accounting",
    "BpfMap",
    "Frame",
    "FrameError",
    "PassToSocket",
    "Ran",
    "Rings",
    "Statistics",
    "Umem",
    "XdpError",
    "XdpLink",
    "XdpProgram",
    "XskMap",
    "XskSocket",
    "aframes",
    "available",
    "status",
]
