"""The packet that an ICMP error quotes: RFC 792, RFC 4443, RFC 1812 section 4.3.2.3.

An error about a packet has the beginning of it after its own eight bytes: the
IP header and at least eight bytes more, which hold the ports. So it tells
which flow it is about, seen from where the packet was: with the addresses
that it had there, from its sender to its destination.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from l4raw.wire import icmp, ipv4, ipv6, tcp, udp
from l4raw.wire.headers import Frame, Headers, past_extensions

_LEAST: Final = 8
"""Bytes of the transport header that every error quotes (RFC 792)."""
_PORTS: Final = Struct("!HH")
_U16: Final = Struct("!H")


class Quoted(NamedTuple):
    """What an error says of the packet that it is about."""

    ip: int
    """Offset of its IP header in the frame."""
    src: bytes
    dst: bytes
    protocol: int
    ip_checksum: int
    """IPv6 has none: 0."""
    l4: int
    sport: int
    dport: int
    checksum_at: int
    """Offset of the TCP or UDP checksum; 0: it is not quoted, or there is none (RFC 768)."""
    checksum: int


class Carried(NamedTuple):
    """What an error says of a quoted packet that carries another one, and need not have ports."""

    src: bytes
    dst: bytes
    protocol: int
    length: int
    """Bytes of it, before it was cut off."""
    sport: int
    """Of UDP; 0: it is not."""
    dport: int
    """Likewise."""


def is_error(headers: Headers) -> bool:
    """Whether it is an ICMP error of its IP version."""
    return headers.icmp != 0 and headers.icmp_type in icmp.ERRORS[4 if len(headers.src) == 4 else 6]


def read(frame: bytes | Frame, headers: Headers) -> Quoted | None:
    """What the ICMP error in `frame` quotes; None: no packet with ports."""
    at, end = headers.icmp + icmp.LENGTH, headers.ip + headers.length
    return _read_v4(frame, at, end) if len(headers.src) == 4 else _read_v6(frame, at, end)


def carried(frame: bytes | Frame, headers: Headers) -> Carried | None:
    """The packet in the ICMP error in `frame`; None: there is none, or a fragment that is not the first."""
    at, end = headers.icmp + icmp.LENGTH, headers.ip + headers.length
    if len(headers.src) == 4:
        if end - at < ipv4.LENGTH:
            return None
        version_ihl, length, place, _, protocol, _, src, dst = ipv4.HEADER.unpack_from(frame, at)
        l4, later = at + (version_ihl & 0xF) * 4, place & ipv4.OFFSET
    else:
        if end - at < ipv6.LENGTH:
            return None
        version_ihl, length, protocol, _, src, dst = ipv6.HEADER.unpack_from(frame, at)
        past = past_extensions(frame, protocol, at + ipv6.LENGTH, end)
        if isinstance(past, int):
            return None
        protocol, l4, is_fragment = past
        length += ipv6.LENGTH
        later = is_fragment and ipv6.EXTENSION.unpack_from(frame, l4 - ipv6.EXTENSION_LENGTH)[2] & ipv6.OFFSET
    if later or version_ihl >> 4 != (4 if len(src) == 4 else 6):
        return None
    has_ports = protocol == ipv4.UDP and end - l4 >= _LEAST
    ports = _PORTS.unpack_from(frame, l4) if has_ports else (0, 0)
    return Carried(src, dst, protocol, length, *ports)


def _read_v4(frame: bytes | Frame, at: int, end: int) -> Quoted | None:
    if end - at < ipv4.LENGTH:
        return None
    version_ihl, _, fragment, _, protocol, checksum, src, dst = ipv4.HEADER.unpack_from(frame, at)
    length = (version_ihl & 0xF) * 4
    if version_ihl >> 4 != 4 or length < ipv4.LENGTH or fragment & ipv4.OFFSET:
        return None
    return _with_ports(frame, (at, src, dst, protocol, checksum), at + length, end)


def _read_v6(frame: bytes | Frame, at: int, end: int) -> Quoted | None:
    if end - at < ipv6.LENGTH:
        return None
    version, _, protocol, _, src, dst = ipv6.HEADER.unpack_from(frame, at)
    past = past_extensions(frame, protocol, at + ipv6.LENGTH, end)
    if version >> 4 != 6 or isinstance(past, int):
        return None
    protocol, l4, is_fragment = past
    if is_fragment and ipv6.EXTENSION.unpack_from(frame, l4 - ipv6.EXTENSION_LENGTH)[2] & ipv6.OFFSET:
        return None
    return _with_ports(frame, (at, src, dst, protocol, 0), l4, end)


def _with_ports(
    frame: bytes | Frame, ip: tuple[int, bytes, bytes, int, int], l4: int, end: int
) -> Quoted | None:
    protocol = ip[3]
    if protocol not in (ipv4.TCP, ipv4.UDP) or end - l4 < _LEAST:
        return None
    sport, dport = _PORTS.unpack_from(frame, l4)
    at = l4 + (tcp.CHECKSUM if protocol == ipv4.TCP else udp.CHECKSUM)
    checksum = _U16.unpack_from(frame, at)[0] if at + 2 <= end else udp.NO_CHECKSUM
    if at + 2 > end or (protocol == ipv4.UDP and checksum == udp.NO_CHECKSUM):
        at = checksum = 0
    return Quoted(*ip, l4, sport, dport, at, checksum)
