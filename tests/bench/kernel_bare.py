"""The bare XDP program, native/bpf/bare.bpf.c, on an interface, until SIGTERM.

    python -m tests.bench.kernel_bare IN OUT DST_MAC SRC_MAC redirect|tx

Prints `ready`, and `{}` at the end: others count.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys

from l4raw.cli.signals import stop_flag
from l4raw.wire.ethernet import parse_mac
from l4raw.xdp import XdpProgram
from l4raw.xdp.native import bpf_object

_CONFIG = struct.Struct("=8s8sI")


def main() -> None:
    """See above."""
    into, out, dst, src, how = sys.argv[1:]
    index = socket.if_nametoindex(out) if how == "redirect" else 0
    with stop_flag() as stopping, XdpProgram(bpf_object("bare"), "bare") as program:
        program.maps[".data.config"].put(bytes(4), _CONFIG.pack(parse_mac(dst), parse_mac(src), index))
        with program.attach(into):
            print("ready", flush=True)
            while not stopping():
                signal.sigtimedwait([], 0.05)
    print("{}")


if __name__ == "__main__":
    main()
