"""One TCP segment without data in a frame of its own: what a check of a backend says and hears.

    Ethernet | IPv4 (RFC 791) or IPv6 (RFC 8200) | TCP (RFC 9293, section 3.1) | its options

Lives here: the bytes. When one is sent is decided in control/vip_probe.py.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from l4raw.wire import ethernet, ipv4, ipv6, tcp
from l4raw.wire.checksum import checksum, pseudo_header
from l4raw.wire.headers import parse

_DONT_FRAGMENT: Final = 0x4000
_VERSION_6: Final = 6 << 28
_TTL: Final = 64
_WINDOW: Final = 0xFFFF


class Segment(NamedTuple):
    """Addresses in network order; ports, sequence and acknowledgment numbers as host integers."""

    src: bytes
    dst: bytes
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    options: bytes = b""
    """A multiple of four bytes."""


def build(segment: Segment, *, src: bytes, dst: bytes) -> bytes:
    """An Ethernet frame with it, every checksum complete; `src` and `dst` are MAC addresses."""
    length = tcp.LENGTH + len(segment.options)
    ports = segment.sport, segment.dport, segment.seq, segment.ack, length // 4 << 4, segment.flags
    header = tcp.WHOLE_HEADER.pack(*ports, _WINDOW, 0, 0) + segment.options
    total = checksum(header, pseudo_header(segment.src, segment.dst, ipv4.TCP, length))
    header = tcp.WHOLE_HEADER.pack(*ports, _WINDOW, total, 0) + segment.options
    if len(segment.src) == 16:
        ip = ipv6.WHOLE_HEADER.pack(_VERSION_6, length, ipv4.TCP, _TTL, segment.src, segment.dst)
        return ethernet.HEADER.pack(dst, src, ethernet.IPV6) + ip + header
    ip = _ipv4(segment, ipv4.LENGTH + length, 0)
    ip = _ipv4(segment, ipv4.LENGTH + length, checksum(ip))
    return ethernet.HEADER.pack(dst, src, ethernet.IPV4) + ip + header


def _ipv4(segment: Segment, length: int, total: int) -> bytes:
    """The IPv4 header; RFC 6864, section 4.1: with DF set, the identification means nothing."""
    first, ends = ipv4.VERSION_4_NO_OPTIONS, (segment.src, segment.dst)
    return ipv4.WHOLE_HEADER.pack(first, 0, length, 0, _DONT_FRAGMENT, _TTL, ipv4.TCP, total, *ends)


def read(frame: bytes | bytearray | memoryview) -> Segment | None:
    """The segment in a frame, without its options; None: there is none that can be read.

    The TCP checksum is not looked at: a sender on this machine leaves it to a network card.
    """
    headers = parse(frame)
    if isinstance(headers, int) or not headers.l4 or headers.protocol != ipv4.TCP:
        return None
    sport, dport, seq, ack, _, flags, *_ = tcp.WHOLE_HEADER.unpack_from(frame, headers.l4)
    return Segment(headers.src, headers.dst, sport, dport, seq, ack, flags)
