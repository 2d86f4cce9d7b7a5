"""The bare loop: receive, write two MAC addresses, send. The least that a forwarder over RawEngine does.

    bare.py IN OUT DST_MAC

Prints `ready`, and on SIGTERM the engine's counters as JSON.
"""

from __future__ import annotations

import json
import signal
import socket
import sys

from l4raw.core.tables import Arm
from l4raw.engine.raw import RawEngine
from l4raw.wire import ethernet
from l4raw.wire.ethernet import parse_mac


def own_mac(name: str) -> bytes:
    """The MAC address of an interface; /sys would show those of the namespace that it was mounted in."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((name, 0))
        mac: bytes = sock.getsockname()[4]
        return mac


def main() -> None:
    """Forward from the first interface to the second until SIGTERM."""
    *names, dst_mac = sys.argv[1:]
    arms = [Arm(name, own_mac(name)) for name in names]
    macs = parse_mac(dst_mac) + arms[1].mac
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    engine = RawEngine(arms).open()
    print("ready", flush=True)
    while not stopping:
        for received in engine.poll(0.01):
            received.frame[: ethernet.TYPE] = macs
            engine.send(received, 1)
    print(json.dumps(engine.statistics()))


if __name__ == "__main__":
    main()
