"""UDP datagrams in fragments, in orders of our choice, and their answers: a script inside a host.

    python -m tests.integration.pieces ROLE ORDERS INTERFACE SRC_MAC DST_MAC SRC SPORT DST DPORT

ROLE client: sends 30 kB from SRC to DST, and waits for as much. ROLE server: waits for it, then answers, from
SRC to DST. Once for each of ORDERS, with commas between: ordered, reversed, shuffled. What is received is
received by the kernel's own UDP socket.
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


def in_order(frames: list[bytes], order: str) -> list[bytes]:
    """The frames as they are to be sent."""
    if order == "shuffled":
        return random.Random(3).sample(frames, len(frames))
    return frames[::-1] if order == "reversed" else frames


def main() -> None:
    """See above; ends with 0 if what came is what should."""
    role, orders, interface, src_mac, dst_mac, src, sport, dst, dport = sys.argv[1:]
    body, wanted = (QUESTION, ANSWER) if role == "client" else (ANSWER, QUESTION)
    frames = pieces(Ether(src=src_mac, dst=dst_mac), src, int(sport), dst, int(dport), body)
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
        for order in orders.split(","):
            if role == "server":
                assert receiver.recv(1 << 16) == wanted
            for frame in in_order(frames, order):
                sender.send(frame)
            if role == "client":
                assert receiver.recv(1 << 16) == wanted
    print("done", flush=True)


if __name__ == "__main__":
    main()
