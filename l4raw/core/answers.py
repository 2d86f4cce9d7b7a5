"""A TCP segment of a connection that is not known any more: its client is told by a reset.

Under NAT a flow's state is the connection. Once it is lost (it has expired, or
the balancer has restarted) each further segment is dropped, and without an
answer the client would send it again for minutes. RFC 9293, section 3.10.7.1
says what a host answers for a connection that it does not have; the balancer
is that host, as nobody else knows the connection. It is not under direct
return: the backend may know it well, so there the drop is silent.

Resets are limited as our ICMP errors are, but by themselves: 1,000 a second,
50 at once. The drop is the same, answered or not.

Lives here: who gets a reset, and its bytes. Must not live here: which segments
have no flow (admit.py).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from l4raw.core.decision import Decision
from l4raw.core.tables import Tables
from l4raw.wire import ethernet, ipv4, ipv6, tcp
from l4raw.wire.abi import DROP_NO_FLOW
from l4raw.wire.checksum import checksum, pseudo_header
from l4raw.wire.headers import Frame, Headers

_U16: Final = Struct("!H")
_U32: Final = 0xFFFF_FFFF
_OWN_TTL: Final = 64


def answered(frame: bytes | Frame, refused: Decision, arm: int, partial: bool, tables: Tables) -> Decision:
    """`refused`, with a reset if its sender is to get one: it is no martian then, and its `acl` lets it in.

    `partial`: the segment's checksum is, and so it says nothing.
    """
    headers, service = refused.headers, refused.service
    assert headers is not None and service is not None, "a client's frame for a service"
    if refused.verdict != DROP_NO_FLOW or not service.service.mode.is_nat or headers.flags & tcp.RST:
        return refused
    # Of a fragment nobody knows yet how long its segment is. What is damaged was never received: section 3.1.
    if headers.fragment or not (partial or _is_whole(frame, headers)) or not tables.resets.take(tables.now):
        return refused
    macs = headers.src_mac + tables.arms[arm].mac
    kind = bytes(frame[ethernet.TYPE : headers.ip])
    return refused._replace(made=(macs + kind + reset(frame, headers),), arm=arm)


def _is_whole(frame: bytes | Frame, headers: Headers) -> bool:
    """Whether the segment's checksum is right."""
    segment = frame[headers.l4 : headers.ip + headers.length]
    return checksum(segment, pseudo_header(headers.src, headers.dst, ipv4.TCP, len(segment))) == 0


def reset(frame: bytes | Frame, headers: Headers) -> bytes:
    """The IP packet that answers this segment, which is none of a known connection and has no RST.

    It is where the sender expects it: at what it has acknowledged, or, if it acknowledges nothing,
    itself acknowledging all that came, of which SYN and FIN are a byte each.
    """
    sequence, acknowledged, offset = tcp.NUMBERS.unpack_from(frame, headers.l4 + tcp.SEQUENCE)
    if headers.flags & tcp.ACK:
        numbers, flags = (acknowledged, 0), tcp.RST
    else:
        data = headers.ip + headers.length - headers.l4 - (offset >> 4 << 2)
        length = data + bool(headers.flags & tcp.SYN) + bool(headers.flags & tcp.FIN)
        numbers, flags = (0, sequence + length & _U32), tcp.RST | tcp.ACK
    fields = (*numbers, tcp.LENGTH // 4 << 4, flags, 0, 0, 0)
    segment = bytearray(tcp.WHOLE_HEADER.pack(headers.dport, headers.sport, *fields))
    ends = headers.dst, headers.src
    total = checksum(segment, pseudo_header(*ends, ipv4.TCP, tcp.LENGTH))
    _U16.pack_into(segment, tcp.CHECKSUM, total)
    if len(headers.src) == 16:
        return ipv6.WHOLE_HEADER.pack(6 << 28, tcp.LENGTH, ipv4.TCP, _OWN_TTL, *ends) + segment
    start = (ipv4.VERSION_4_NO_OPTIONS, 0, ipv4.LENGTH + tcp.LENGTH, 0, ipv4.DONT_FRAGMENT)
    header = bytearray(ipv4.WHOLE_HEADER.pack(*start, _OWN_TTL, ipv4.TCP, 0, *ends))
    _U16.pack_into(header, ipv4.CHECKSUM, checksum(header))
    return bytes(header + segment)
