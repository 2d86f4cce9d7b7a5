"""A super-frame cut into segments, as a network card with TSO or USO cuts it.

A sender on this machine leaves its card one large segment and says how many
bytes each of those on the wire is to have. What the kernel's own segmentation
makes of it (net/ipv4/tcp_offload.c, udp_offload.c, af_inet.c) is made here:
same headers, with the fields that count.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from l4raw.wire import ipv4, ipv6, tcp, udp
from l4raw.wire.checksum import checksum, pseudo_header
from l4raw.wire.headers import Frame, Headers
from l4raw.wire.ipv4 import IpProto

_U16: Final = Struct("!H")
_U32: Final = Struct("!I")
_OF_THE_LAST: Final = tcp.FIN | tcp.PSH
_OF_THE_FIRST: Final = tcp.CWR
_WRAP16, _WRAP32 = 0xFFFF, 0xFFFF_FFFF
MOST: Final = 1366
"""Segments that one super-frame may cost us: 64 KiB in pieces of 48 bytes (Linux, tcp_min_snd_mss)."""


def cut(frame: bytes | Frame, headers: Headers, size: int) -> list[bytearray]:
    """Whole frames with up to `size` bytes of payload each; `headers` are those of `frame`, with an `l4`.

    Every checksum is computed, but for UDP's where the sender had none. Ethernet padding goes.
    RFC 9293, section 3.4 for sequence numbers, RFC 3168, section 6.1.2 for CWR.
    """
    l4, is_tcp = headers.l4, headers.protocol == ipv4.TCP
    start = l4 + (frame[l4 + tcp.OFFSET] >> 4 << 2 if is_tcp else udp.HEADER_LENGTH)
    end = headers.ip + headers.length
    places = range(start, end, size) or range(start, start + 1)
    found = []
    for number, at in enumerate(places):
        segment = bytearray(frame[:start]) + frame[at : min(at + size, end)]
        _set_ip(segment, headers, number)
        if is_tcp:
            _set_tcp(segment, l4, number * size, is_first=number == 0, is_last=at + size >= end)
        else:
            _U16.pack_into(segment, l4 + udp.LENGTH, len(segment) - l4)
        _set_checksum(segment, headers)
        found.append(segment)
    return found


def _set_ip(segment: bytearray, headers: Headers, number: int) -> None:
    """Length; of IPv4, the next identification and the checksum too."""
    ip = headers.ip
    if len(headers.src) == 16:
        _U16.pack_into(segment, ip + ipv6.PAYLOAD_LENGTH, len(segment) - ip - ipv6.LENGTH)
        return
    (identification,) = _U16.unpack_from(segment, ip + ipv4.ID)
    _U16.pack_into(segment, ip + ipv4.TOTAL_LENGTH, len(segment) - ip)
    _U16.pack_into(segment, ip + ipv4.ID, identification + number & _WRAP16)
    _U16.pack_into(segment, ip + ipv4.CHECKSUM, 0)
    _U16.pack_into(segment, ip + ipv4.CHECKSUM, checksum(segment[ip : headers.l4]))


def _set_tcp(segment: bytearray, l4: int, offset: int, *, is_first: bool, is_last: bool) -> None:
    (sequence,) = _U32.unpack_from(segment, l4 + tcp.SEQUENCE)
    _U32.pack_into(segment, l4 + tcp.SEQUENCE, sequence + offset & _WRAP32)
    if not is_first:
        segment[l4 + tcp.FLAGS] &= ~_OF_THE_FIRST
    if not is_last:
        segment[l4 + tcp.FLAGS] &= ~_OF_THE_LAST


def _set_checksum(segment: bytearray, headers: Headers) -> None:
    is_udp = headers.protocol == ipv4.UDP
    if is_udp and headers.l4_checksum == udp.NO_CHECKSUM:
        return
    l4, at = headers.l4, headers.l4 + (udp.CHECKSUM if is_udp else tcp.CHECKSUM)
    _U16.pack_into(segment, at, 0)
    pseudo = pseudo_header(headers.src, headers.dst, IpProto(headers.protocol), len(segment) - l4)
    total = checksum(segment[l4:], pseudo)
    _U16.pack_into(segment, at, total or (udp.ZERO if is_udp else 0))
