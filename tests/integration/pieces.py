"""A UDP datagram in fragments, in an order of our choice, and its answer: a script inside a host.

    python -m tests.integration.pieces ROLE ORDER INTERFACE SRC_MAC DST_MAC SRC SPORT DST DPORT

ROLE client: sends 30 kB from SRC to DST, and waits for as much. ROLE server: waits for it, then answers, from
SRC to DST. What is received is received by the kernel's own UDP socket. ORDER: ordered, reversed, shuffled.
"""

from __future__ import annotations

import random
import socket
import sys

from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

SIZE = 30_000
QUESTION, ANSWER = (random.Random(seed).randbytes(SIZE) for seed in (1, 2))
DEADLINE = 20.0


def pieces(ether: Packet, src: str, sport: int, dst: str, dport: int, body: bytes) -> list[bytes]:
    """The frames of one datagram."""
    datagram = UDP(sport=sport, dport=dport) / Raw(body)
    if ":" in src:
        whole = IPv6(src=src, dst=dst) / IPv6ExtHdrFragment(id=0xBEEF) / datagram
        cut = fragment6(whole, 1400)  # type: ignore[no-untyped-call]
        return [bytes(ether / part) for part in cut]
    packet = IP(bytes(IP(src=src, dst=dst, id=0x1234) / datagram))
    parts = fragment(packet, fragsize=1400)  # type: ignore[no-untyped-call]
    return [bytes(ether / part) for part in parts]


def main() -> None:
    """See above; ends with 0 if what came is what should."""
    role, order, interface, src_mac, dst_mac, src, sport, dst, dport = sys.argv[1:]
    body, wanted = (QUESTION, ANSWER) if role == "client" else (ANSWER, QUESTION)
    frames = pieces(Ether(src=src_mac, dst=dst_mac), src, int(sport), dst, int(dport), body)
    if order == "reversed":
        frames.reverse()
    elif order == "shuffled":
        random.Random(3).shuffle(frames)
    family = socket.AF_INET6 if ":" in src else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind((src, int(sport)))
        receiver.settimeout(DEADLINE)
        sender.bind((interface, 0))
        print("ready", flush=True)
        if role == "server":
            assert receiver.recv(1 << 16) == wanted
        for frame in frames:
            sender.send(frame)
        if role == "client":
            assert receiver.recv(1 << 16) == wanted
    print("done", flush=True)


if __name__ == "__main__":
    main()
