"""Send the frames of native/bpf/generator.bpf.c; run inside the client's namespace, as root.

    python -m tests.bench.xdp_generator INTERFACE DST_MAC DST_IP \\
        RATE SECONDS FLOWS NEW_RATE BURST NEW_FRAMES

RATE frames/s go round FLOWS known flows; NEW_RATE frames/s more are of new ones, NEW_FRAMES of each. BURST:
how many frames it may be behind and catch up with at once; others are left out. Prints `Sent` as JSON.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
import time
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from l4raw.wire.ethernet import parse_mac
from l4raw.xdp import XdpProgram
from l4raw.xdp.native import bpf_object
from tests.bench.load_frame import FIRST_KNOWN, FIRST_NEW, MOST_KNOWN, MOST_NEW, LoadFrame, load_frame

TICKS: Final = 1024
"""A nanosecond."""
MARGIN_S: Final = 0.1
"""After SECONDS, until a signal ends the call: what the kernel takes to begin."""
_REPEAT: Final = (1 << 31) - 1
"""Frames a call, attempts included: never reached. Several calls would make gaps of 24 ms."""
_CONFIG: Final = struct.Struct("=64s6IQ2Q2QQ")
STATE: Final = struct.Struct("=QQ2Q2Q2QQ")
_KEY: Final = bytes(4)


class Sent(NamedTuple):
    """What the generator did. Frames handed to the interface; what became of them others count."""

    known: int
    new: int
    left_out: int
    """Frames that were due while the generator did not run, because it was late by more than BURST."""
    attempts: int
    """Calls of the program: SECONDS * 1e9 / attempts is what a frame costs that is not sent yet."""
    seconds: float


class Order(NamedTuple):
    """What to send."""

    rate: float
    """Frames/s of known flows."""
    seconds: float
    flows: int
    new_rate: float
    """Frames/s of new flows."""
    burst: int
    new_frames: int = 1
    """Of each new flow, one after the other."""


def pack(frame: LoadFrame, interface: int, order: Order) -> bytes:
    """The program's `struct config`. Raises ValueError for more flows than there are addresses."""
    if order.new_frames < 1:
        raise ValueError("a new flow has a frame")
    if not 1 <= order.flows <= MOST_KNOWN or order.new_rate * order.seconds > MOST_NEW * order.new_frames:
        raise ValueError(f"at most {MOST_KNOWN} known and {MOST_NEW} new flows")
    intervals = [round(TICKS * 1e9 / rate) if rate else 0 for rate in (order.rate, order.new_rate)]
    return _CONFIG.pack(
        frame.frame, frame.ip_sum, frame.udp_sum, interface, order.flows,
        int.from_bytes(FIRST_KNOWN, "big"), int.from_bytes(FIRST_NEW, "big"),
        round(order.seconds * TICKS * 1e9),
        *intervals, *(interval * order.burst for interval in intervals), order.new_frames,
    )  # fmt: skip


def send(interface: str, dst_mac: bytes, dst: bytes, order: Order) -> Sent:
    """Do it; blocks for a little more than `order.seconds`. Main thread only: SIGALRM ends the call."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0))
        frame = load_frame(sock.getsockname()[4], dst_mac, dst)
    with XdpProgram(bpf_object("generator"), "generate") as program:
        config, state = program.maps[".data.config"], program.maps[".data.state"]
        config.put(_KEY, pack(frame, socket.if_nametoindex(interface), order))
        signal.signal(signal.SIGALRM, lambda number, _: None)
        signal.setitimer(signal.ITIMER_REAL, order.seconds + MARGIN_S, MARGIN_S)
        start = 0
        # A signal can come too early on a busy machine; the schedule then goes on where it was.
        while not start or time.monotonic_ns() < start + order.seconds * 1e9:
            program.run_live(frame.frame, _REPEAT)
            found = STATE.unpack(state.get(_KEY) or b"")
            start = found[0]
        signal.setitimer(signal.ITIMER_REAL, 0)
    _, attempts, _, _, known, new, left_out, new_left_out, _ = found
    return Sent(known, new, left_out + new_left_out, attempts, order.seconds)


def main() -> None:
    """Parse the command line, send, print."""
    interface, dst_mac, dst = sys.argv[1:4]
    rate, seconds, flows, new_rate, burst, new_frames = (float(text) for text in sys.argv[4:])
    order = Order(rate, seconds, int(flows), new_rate, int(burst), int(new_frames))
    print(json.dumps(send(interface, parse_mac(dst_mac), IPv4Address(dst).packed, order)._asdict()))


if __name__ == "__main__":
    main()
