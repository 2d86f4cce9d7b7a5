"""Send small UDP frames at a steady rate; run inside the client's namespace.

    generator.py INTERFACE DST_MAC SRC_IP DST_IP RATE SECONDS FLOWS (a multiple of 8)

Frames are 60 bytes (64 with the frame check sequence); flows differ in their
source port. Prints how many were sent and how long it took, as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from ipaddress import IPv4Address
from itertools import cycle

from l4raw.wire import ethernet, ipv4, udp
from l4raw.wire.checksum import checksum, pseudo_header
from l4raw.wire.ethernet import parse_mac

PORT = 9
"""discard (RFC 863)"""
FIRST_SPORT = 1024
_PAYLOAD = b"l4raw benchmark..."
_LENGTH = udp.HEADER_LENGTH + len(_PAYLOAD)
_TTL = 64
_BURST = 8


def make_frame(src_mac: bytes, dst_mac: bytes, src: bytes, dst: bytes, sport: int) -> bytes:
    """A UDP datagram of 18 bytes, both checksums filled in, in a 60-byte frame."""
    start = pseudo_header(src, dst, ipv4.UDP, _LENGTH)
    l4_sum = checksum(udp.HEADER.pack(sport, PORT, _LENGTH, 0) + _PAYLOAD, start) or udp.ZERO
    fields = ipv4.VERSION_4_NO_OPTIONS, ipv4.LENGTH + _LENGTH, 0, _TTL, ipv4.UDP
    ip_sum = checksum(ipv4.HEADER.pack(*fields, 0, src, dst))
    return (
        ethernet.HEADER.pack(dst_mac, src_mac, ethernet.IPV4)
        + ipv4.HEADER.pack(*fields, ip_sum, src, dst)
        + udp.HEADER.pack(sport, PORT, _LENGTH, l4_sum)
        + _PAYLOAD
    )


def main() -> None:
    """Send bursts of eight, each when it is due, until the time is over; a sender that is late catches up."""
    interface, dst_mac, *addresses = sys.argv[1:5]
    rate, seconds, flows = (int(text) for text in sys.argv[5:8])
    src, dst = (IPv4Address(text).packed for text in addresses)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0))
        macs = sock.getsockname()[4], parse_mac(dst_mac)
        frames = [make_frame(*macs, src, dst, FIRST_SPORT + i) for i in range(flows)]
        bursts = cycle([frames[i : i + _BURST] for i in range(0, flows, _BURST)])
        send, clock, sent = sock.send, time.perf_counter, 0
        start = now = due = clock()
        while now < start + seconds:
            if now >= due:
                due += _BURST / rate
                for frame in next(bursts):
                    send(frame)
                sent += _BURST
            now = clock()
        print(json.dumps({"sent": sent, "seconds": now - start}), flush=True)


if __name__ == "__main__":
    main()
