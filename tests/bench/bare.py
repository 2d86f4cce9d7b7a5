"""The baselines: what the same sockets do when nobody decides anything.

    bare.py receive|forward IN OUT OUT_MAC

`receive` takes frames and drops them; `forward` writes two MAC addresses and
sends, which is the least that any forwarder in Python must do. Prints
`ready`, and on SIGTERM the frames it handled and its CPU seconds, as JSON.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time

from l4raw.core.tables import Arm
from l4raw.engine.raw import RawEngine
from l4raw.wire.ethernet import parse_mac


def own_mac(name: str) -> bytes:
    """The MAC address of an interface; /sys shows another network namespace's."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((name, 0))
        mac: bytes = sock.getsockname()[4]
        return mac


def main() -> None:
    """Run until SIGTERM."""
    kind, *names, mac = sys.argv[1:]
    arms = [Arm(name, own_mac(name)) for name in names]
    macs = parse_mac(mac) + arms[-1].mac
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    engine = RawEngine(arms).open()
    print("ready", flush=True)
    frames, start = 0, time.process_time()
    while not stopping:
        for received in engine.poll(0.01):
            frames += 1
            if kind == "forward":
                received.frame[:12] = macs
                engine.send(received, len(arms) - 1)
    print(json.dumps({"frames": frames, "cpu": time.process_time() - start, **engine.statistics()}))


if __name__ == "__main__":
    main()
