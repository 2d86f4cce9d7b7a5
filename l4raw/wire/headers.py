"""parse(): the one ladder from bytes to fields.

Each rung checks a length once; after it, no read can fail. Whatever is wrong
ends the climb with the verdict that names it: a frame never raises.
"""

from __future__ import annotations

from typing import NamedTuple

from l4raw.wire import ethernet, ipv4, tcp, udp
from l4raw.wire.abi import (
    DROP_IP_CHECKSUM,
    DROP_IP_HEADER_LENGTH,
    DROP_IP_LENGTH,
    DROP_IP_VERSION,
    DROP_SHORT,
    DROP_TCP_OFFSET,
    DROP_UDP_LENGTH,
    PASS_NOT_IPV4,
    Verdict,
)
from l4raw.wire.checksum import header_is_valid

Frame = bytearray | memoryview
"""Bytes from the destination MAC on. What is only read may be `bytes` too."""


class Headers(NamedTuple):
    """What parsing read. Ports and flags are 0 where there are none: `l4` tells."""

    dst_mac: bytes
    src_mac: bytes
    src: bytes
    dst: bytes
    protocol: int
    sport: int
    dport: int
    flags: int
    """TCP flags; see `l4raw.wire.tcp`."""
    l4_checksum: int
    ttl: int
    ip_checksum: int
    l4: int
    """Offset of the TCP or UDP header; 0 for a fragment or another protocol."""
    fragment: bool


_Transport = tuple[int, int, int, int]
"""Source port, destination port, TCP flags, checksum."""

_new = tuple.__new__
"""Makes a NamedTuple without its constructor: 0.1 us instead of 0.26, of the 1 us that parse() takes."""


def parse(frame: bytes | Frame) -> Headers | Verdict:
    """Read the headers of an Ethernet frame, or say with a verdict why they cannot be read.

    RFC 1812, section 5.2.2 lists what a router must check of an IPv4 header.
    Version and IHL come first here, since the sum depends on them. Trailing
    bytes past the IPv4 total length are Ethernet padding and are left alone.
    """
    size = len(frame)
    if size < ethernet.LENGTH:
        return DROP_SHORT
    dst_mac, src_mac, ethertype = ethernet.HEADER.unpack_from(frame, 0)
    if ethertype != ethernet.IPV4:
        return PASS_NOT_IPV4

    room = size - ethernet.LENGTH
    if room < ipv4.LENGTH:
        return DROP_SHORT
    version_ihl, total, fragment, ttl, protocol, ip_checksum, src, dst = ipv4.HEADER.unpack_from(
        frame, ethernet.LENGTH
    )
    header_length = ipv4.LENGTH
    if version_ihl != ipv4.VERSION_4_NO_OPTIONS:
        if version_ihl >> 4 != 4:
            return DROP_IP_VERSION
        header_length = (version_ihl & 0xF) * 4
        if header_length < ipv4.LENGTH or header_length > room:
            return DROP_IP_HEADER_LENGTH
    if not header_is_valid(frame[ethernet.LENGTH : ethernet.LENGTH + header_length]):
        return DROP_IP_CHECKSUM
    if total < header_length or total > room:
        return DROP_IP_LENGTH

    l4, is_fragment = ethernet.LENGTH + header_length, fragment & ipv4.IS_FRAGMENT != 0
    fields: _Transport | Verdict = (0, 0, 0, 0)
    if is_fragment:
        l4 = 0
    elif protocol == ipv4.TCP:
        fields = _tcp(frame, l4, total - header_length)
    elif protocol == ipv4.UDP:
        fields = _udp(frame, l4, total - header_length)
    else:
        l4 = 0
    if isinstance(fields, int):
        return fields
    return _new(Headers, (dst_mac, src_mac, src, dst, protocol, *fields, ttl, ip_checksum, l4, is_fragment))


def _tcp(frame: bytes | Frame, l4: int, payload: int) -> _Transport | Verdict:
    """Ports, flags and checksum of a segment of `payload` bytes (RFC 9293, section 3.1)."""
    if payload < tcp.LENGTH:
        return DROP_SHORT
    sport, dport, offset, flags, checksum = tcp.HEADER.unpack_from(frame, l4)
    data_offset = offset >> 4 << 2
    if data_offset < tcp.LENGTH or data_offset > payload:
        return DROP_TCP_OFFSET
    return sport, dport, flags, checksum


def _udp(frame: bytes | Frame, l4: int, payload: int) -> _Transport | Verdict:
    """Ports, no flags, and checksum of a datagram in `payload` bytes (RFC 768)."""
    if payload < udp.HEADER_LENGTH:
        return DROP_SHORT
    sport, dport, length, checksum = udp.HEADER.unpack_from(frame, l4)
    if length < udp.HEADER_LENGTH or length > payload:
        return DROP_UDP_LENGTH
    return sport, dport, 0, checksum
