"""The bare XDP program, native/bpf/bare.bpf.c: what a forwarder in XDP can do at most.

Lives here: loading it for a network. Must not live here: when it is attached (subject.py).
"""

from __future__ import annotations

import struct
from typing import Final

from l4raw.xdp import XdpProgram
from l4raw.xdp.native import bpf_object

CONFIG: Final = struct.Struct("=8s8sI")


def bare(destination: bytes, source: bytes, interface: int) -> XdpProgram:
    """Writes these MAC addresses and redirects to the interface with this index; 0: XDP_TX."""
    program = XdpProgram(bpf_object("bare"), "bare")
    program.maps[".data.config"].put(bytes(4), CONFIG.pack(destination, source, interface))
    return program
