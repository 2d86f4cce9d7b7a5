"""Neighbour discovery for IPv6: RFC 4861, sections 4.3, 4.4 and 4.6.1; probes: RFC 4862, section 5.4.

ICMPv6 from its first byte on, which follows an IPv6 header without extensions:

    0                   1                   2                   3
    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
   +---------------+---------------+-------------------------------+
 0 | Type 135, 136 |   Code (0)    |           Checksum            |
   +-+-+-+---------+---------------+-------------------------------+
 4 |R|S|O|   of an advertisement; reserved in a solicitation       |
   +-+-+-+---------------------------------------------------------+
 8 |                      Target Address (16)                      |
   +---------------+---------------+-------------------------------+
24 | Option 1 or 2 |  Length (1)   |     Link-layer Address (6)    |
   +---------------+---------------+-------------------------------+

Lives here: the bytes. Who is answered is decided in control/nd.py.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from l4raw.wire import ethernet, ipv6
from l4raw.wire.checksum import checksum, pseudo_header

SOLICITATION: Final = 135
ADVERTISEMENT: Final = 136

SOLICITED: Final = 0x4000_0000
OVERRIDE: Final = 0x2000_0000
"""Flags of an advertisement."""

OFFSET: Final = ethernet.LENGTH + ipv6.LENGTH
"""Where ICMPv6 starts in a frame."""
LENGTH: Final = 24
HOP_LIMIT: Final = 255
"""Who sees it knows that no router has forwarded the packet."""

SOURCE_ADDRESS: Final = 1
TARGET_ADDRESS: Final = 2
"""Options."""

NO_ADDRESS: Final = bytes(16)
"""The source of a probe."""
ALL_NODES: Final = bytes.fromhex("ff020000000000000000000000000001")
_SOLICITED_NODE: Final = bytes.fromhex("ff0200000000000000000001ff")

_HEADER: Final = Struct("!BBHI16s")
_IP: Final = Struct("!IHBB16s16s")
_OPTION: Final = Struct("!BB6s")
_VERSION: Final = 6 << 28


class Discovery(NamedTuple):
    """A solicitation or an advertisement, valid by RFC 4861, sections 7.1.1 and 7.1.2."""

    type: int
    src: bytes
    dst: bytes
    target: bytes
    flags: int
    mac: bytes | None
    """Of the option: the sender's (solicitation) or the target's (advertisement); None: there is none."""


def group_of(address: bytes) -> bytes:
    """The solicited-node multicast address of an address: RFC 4291, section 2.7.1."""
    return _SOLICITED_NODE + address[13:]


def group_mac(group: bytes) -> bytes:
    """The MAC address of a multicast group: RFC 2464, section 7."""
    return b"\x33\x33" + group[12:]


def parse(frame: bytes | bytearray | memoryview) -> Discovery | None:
    """What a frame says; None: it is no solicitation or advertisement, or one to be ignored."""
    if len(frame) < OFFSET + LENGTH or ethernet.HEADER.unpack_from(frame)[2] != ethernet.IPV6:
        return None
    first, length, protocol, hop_limit, src, dst = _IP.unpack_from(frame, ethernet.LENGTH)
    if first >> 28 != 6 or protocol != ipv6.ICMPV6 or hop_limit != HOP_LIMIT:
        return None
    if length < LENGTH or OFFSET + length > len(frame):
        return None
    body = bytes(frame[OFFSET : OFFSET + length])
    kind, code, _, flags, target = _HEADER.unpack_from(body)
    if kind not in (SOLICITATION, ADVERTISEMENT) or code or target[0] == 0xFF:
        return None
    if checksum(body, pseudo_header(src, dst, ipv6.ICMPV6, length)):
        return None
    options = _options(body)
    if options is None:
        return None
    mac = options.get(SOURCE_ADDRESS if kind == SOLICITATION else TARGET_ADDRESS)
    if kind == SOLICITATION and src == NO_ADDRESS and mac:
        return None
    return Discovery(kind, src, dst, target, flags, mac)


def _options(body: bytes) -> dict[int, bytes] | None:
    """Those that are as long as a MAC address needs, by type; None: one of any type is malformed."""
    at, found = LENGTH, {}
    while at < len(body):
        size = 8 * body[at + 1] if at + 1 < len(body) else 0
        if not size or at + size > len(body):
            return None
        if size == 8:
            found[body[at]] = body[at + 2 : at + 8]
        at += size
    return found


def build(discovery: Discovery, *, src: bytes, dst: bytes) -> bytes:
    """An Ethernet frame with it; `src` and `dst` are MAC addresses."""
    kind, ip_src, ip_dst, target, flags, mac = discovery
    option = SOURCE_ADDRESS if kind == SOLICITATION else TARGET_ADDRESS
    body = _HEADER.pack(kind, 0, 0, flags, target) + (_OPTION.pack(option, 1, mac) if mac else b"")
    total = checksum(body, pseudo_header(ip_src, ip_dst, ipv6.ICMPV6, len(body)))
    ip = _IP.pack(_VERSION, len(body), ipv6.ICMPV6, HOP_LIMIT, ip_src, ip_dst)
    return ethernet.HEADER.pack(dst, src, ethernet.IPV6) + ip + body[:2] + total.to_bytes(2, "big") + body[4:]
