"""Send small UDP frames at a steady rate; run inside the client's namespace.

    generator.py INTERFACE DST_MAC SRC_IP VIP RATE SECONDS FLOWS

Frames are 60 bytes, flows differ in their source port. Prints how many were
sent and how long it took, as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from ipaddress import IPv4Address
from struct import pack

from l4raw.wire import ethernet, ipv4
from l4raw.wire.checksum import checksum
from l4raw.wire.ethernet import parse_mac

PORT = 9
"""discard"""
_BURST = 8


def frame(own_mac: bytes, dst_mac: bytes, src: bytes, dst: bytes, sport: int) -> bytes:
    """A UDP datagram of 18 bytes without a checksum, in a 60-byte frame."""
    udp = pack("!HHHH", sport, PORT, 26, 0) + b"l4raw benchmark..."
    header = bytearray(pack("!BBHHHBBH4s4s", 0x45, 0, 46, 0, 0x4000, 64, ipv4.UDP, 0, src, dst))
    header[ipv4.CHECKSUM : ipv4.CHECKSUM + 2] = checksum(header).to_bytes(2, "big")
    return ethernet.HEADER.pack(dst_mac, own_mac, ethernet.IPV4) + header + udp


def main() -> None:
    """Send in bursts of eight, each at its time; a sender that is late catches up."""
    interface, dst_mac, src, dst = sys.argv[1:5]
    rate, seconds, flows = (float(text) for text in sys.argv[5:8])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, ethernet.IPV4))
        own_mac = sock.getsockname()[4]
        ends = IPv4Address(src).packed, IPv4Address(dst).packed
        frames = [frame(own_mac, parse_mac(dst_mac), *ends, 1024 + i) for i in range(int(flows))]
        total, count = int(rate * seconds), len(frames)
        send, clock = sock.send, time.perf_counter
        start = due = clock()
        for number in range(0, total, _BURST):
            while clock() < due:
                pass
            for i in range(number, number + _BURST):
                send(frames[i % count])
            due += _BURST / rate
        print(json.dumps({"sent": -(-total // _BURST) * _BURST, "seconds": clock() - start}))


if __name__ == "__main__":
    main()
