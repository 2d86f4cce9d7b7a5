"""The frame of native/bpf/load.h: its constant part, and the sums that its checksums begin with.

Lives here: bytes. Must not live here: rates and flows (generator.py).
"""

from __future__ import annotations

import struct
import sys
from typing import Final, NamedTuple

from l4raw.wire import ethernet, ipv4, tcp, udp
from l4raw.wire.checksum import pseudo_header

PORT: Final = 9
"""discard (RFC 863)"""
LENGTH: Final = 60
"""Bytes: the shortest Ethernet frame, its check sequence not counted."""
KNOWN, NEW = 0, 1
"""Classes of frames; the sink counts each apart."""
MARK: Final = 0x4C40
"""IPv4's identification, less the class."""
FIRST_KNOWN: Final = bytes((198, 18, 0, 0))
FIRST_NEW: Final = bytes((198, 19, 0, 0))
"""Source addresses; 198.18.0.0/15 is for benchmarks (RFC 2544, appendix C.2.2)."""
KNOWN_PORTS, KNOWN_PORT_BITS = 1024, 14
"""The first source port of a known flow, and how many there are, as a power of two; likewise:"""
NEW_PORTS, NEW_PORT_BITS = 32768, 15
MOST_KNOWN: Final = 1 << KNOWN_PORT_BITS + 16
"""Flows until the addresses of known ones reach those of new ones."""
MOST_NEW: Final = 1 << NEW_PORT_BITS + 16
SYN_SEQUENCE, SERVER_SEQUENCE = 0x20000000, 0x10000000
"""Of the SYNs of a client, and of what the sink answers."""
_PACKET: Final = LENGTH - ethernet.LENGTH
_L4: Final = _PACKET - ipv4.LENGTH
_TTL: Final = 64
_WINDOW: Final = 65535
_WORDS_LONG: Final = 5 << 4


class Template(NamedTuple):
    """A frame without source address, source port, time and checksums, which all are 0."""

    frame: bytes
    ip_sum: int
    """Of the 16-bit words of the IPv4 header, in this machine's byte order (RFC 1071, section 2B)."""
    l4_sum: int
    """The same of the datagram or segment and its pseudo-header."""


class Ends(NamedTuple):
    """From whom to whom; the source address is the generator's affair."""

    src_mac: bytes
    dst_mac: bytes
    dst: bytes
    port: int = PORT


def datagram(ends: Ends, kind: int = KNOWN) -> Template:
    """UDP of the class `kind`."""
    return _template(ends, kind, ipv4.UDP, udp.HEADER.pack(0, ends.port, _L4, 0))


def segment(ends: Ends, flags: int, kind: int = KNOWN) -> Template:
    """TCP: a SYN, or what the client sends after the server's SYN-ACK, which it acknowledges."""
    first = bool(flags & tcp.SYN)
    numbers = (SYN_SEQUENCE, 0) if first else (SYN_SEQUENCE + 1, SERVER_SEQUENCE + 1)
    header = tcp.WHOLE_HEADER.pack(0, ends.port, *numbers, _WORDS_LONG, flags, _WINDOW, 0, 0)
    return _template(ends, kind, ipv4.TCP, header)


def _template(ends: Ends, kind: int, protocol: ipv4.IpProto, header: bytes) -> Template:
    """Zeros after the header; time comes into the last six."""
    mark = int.from_bytes((MARK + kind).to_bytes(2, sys.byteorder))
    ip = ipv4.WHOLE_HEADER.pack(
        ipv4.VERSION_4_NO_OPTIONS, 0, _PACKET, mark, 0, _TTL, protocol, 0, bytes(4), ends.dst
    )
    l4 = header.ljust(_L4, b"\0")
    pseudo = pseudo_header(bytes(4), ends.dst, protocol, _L4)
    frame = ethernet.HEADER.pack(ends.dst_mac, ends.src_mac, ethernet.IPV4) + ip + l4
    return Template(frame, _words(ip), _words(l4 + pseudo.to_bytes(2, "big")))


def _words(data: bytes) -> int:
    return sum(struct.unpack(f"={len(data) // 2}H", data))
