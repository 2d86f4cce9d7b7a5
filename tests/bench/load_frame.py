"""The frame of native/bpf/load.h: its constant part, and the sums that its checksums begin with.

Lives here: bytes. Must not live here: rates and flows (xdp_generator.py).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from l4raw.wire import ethernet, ipv4, udp
from l4raw.wire.checksum import pseudo_header

PORT: Final = 9
"""discard (RFC 863)"""
MAGIC: Final = b"l4rawgen"
LENGTH: Final = 60
"""Bytes: the shortest Ethernet frame, its check sequence not counted."""
FIRST_KNOWN: Final = bytes((198, 18, 0, 0))
FIRST_NEW: Final = bytes((198, 19, 0, 0))
"""Source addresses; 198.18.0.0/15 is for benchmarks (RFC 2544, appendix C.2.2)."""
NEW_PORTS: Final = 32768
"""A source port below is a known flow's, any other a new one's."""
MOST_KNOWN: Final = 1 << 14 + 16
"""Flows until the addresses of known ones reach those of new ones."""
MOST_NEW: Final = 1 << 15 + 16
_DATAGRAM: Final = LENGTH - ethernet.LENGTH - ipv4.LENGTH
_TTL: Final = 64


class LoadFrame(NamedTuple):
    """A frame without source address, source port and checksums, which all are 0."""

    frame: bytes
    ip_sum: int
    """Of the 16-bit words of the IPv4 header, in this machine's byte order (RFC 1071, section 2B)."""
    udp_sum: int
    """The same of the datagram and its pseudo-header."""


def load_frame(src_mac: bytes, dst_mac: bytes, dst: bytes, port: int = PORT) -> LoadFrame:
    """Make the constant part of frames to `dst`, `port`."""
    ip = ipv4.HEADER.pack(
        ipv4.VERSION_4_NO_OPTIONS, ipv4.LENGTH + _DATAGRAM, 0, _TTL, ipv4.UDP, 0, bytes(4), dst
    )
    datagram = udp.HEADER.pack(0, port, _DATAGRAM, 0) + bytes(10) + MAGIC
    pseudo = pseudo_header(bytes(4), dst, ipv4.UDP, _DATAGRAM)
    frame = ethernet.HEADER.pack(dst_mac, src_mac, ethernet.IPV4) + ip + datagram
    return LoadFrame(frame, _words(ip), _words(datagram + pseudo.to_bytes(2, "big")))


def _words(data: bytes) -> int:
    return sum(struct.unpack(f"={len(data) // 2}H", data))
