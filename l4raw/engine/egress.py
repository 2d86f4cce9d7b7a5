"""Test frames: sent as the kernel path sends, by a redirect of an XDP program, before it sends any.

Lives here: what such a frame is, and the program that sends it. Must not live
here: what became of it, which only drivers count (l4raw/control/egress.py).
"""

from __future__ import annotations

import sys
from typing import Final

from l4raw.wire import ethernet
from l4raw.xdp import XdpProgram
from l4raw.xdp.native import bpf_object

SIZE: Final = 60
"""Bytes without the frame check sequence: the least that Ethernet sends."""
_TEXT: Final = b"l4raw: a test frame, please ignore"


def frame(mac: bytes) -> bytes:
    """A test frame for the interface with this MAC address, from which and to which it is.

    A bridge learns from it only where that interface is, which is true, and does not forward it: the
    port it is for is the one it came in by (IEEE 802.1D-2004, 7.7.1). Where it is flooded or comes back,
    it is of a type that nobody listens for. To a group address, each host would have to look at it.
    """
    return (ethernet.HEADER.pack(mac, mac, ethernet.EXPERIMENTAL) + _TEXT).ljust(SIZE, b"\0")


class TrialFrames:
    """The program that sends them, loaded, and attached to nothing. A run needs no capability any more."""

    def __init__(self) -> None:
        """Raises `OSError` where it was not compiled or the kernel refuses it."""
        self._program = XdpProgram(bpf_object("egress"), "l4raw_egress")
        try:
            self._interface = self._program.maps[".data.interface"]
        except OSError:
            self._program.close()
            raise

    def send(self, interface: int, mac: bytes, count: int) -> bool:
        """Redirect so many test frames to the interface with this index; False: a signal came.

        Takes some 25 ms. Raises `OSError`; a frame that the interface does not take is no error.
        """
        self._interface.put(bytes(4), interface.to_bytes(4, sys.byteorder))
        return self._program.run_live(frame(mac), count)

    def close(self) -> None:
        """Close it. May be called twice."""
        self._program.close()
