"""Frames by hand: built, made partial, completed, and spoiled in every way we know.

With struct and nothing else, since scapy needs 100 us for a frame. What is
read here of a frame is read apart from the product's parser.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from struct import pack, pack_into, unpack_from
from typing import NamedTuple

from l4raw.wire import ethernet, ipv4, tcp, udp
from l4raw.wire.checksum import checksum, fold, pseudo_header

TCP, UDP = ipv4.TCP, ipv4.UDP
IP = ethernet.LENGTH


class Tuple5(NamedTuple):
    """Both ends, and the protocol."""

    src: bytes
    sport: int
    dst: bytes
    dport: int
    protocol: int


def build(
    of: Tuple5, macs: tuple[bytes, bytes], flags: int = tcp.ACK, ttl: int = 64, body: bytes = b""
) -> bytearray:
    """A frame with right checksums; `macs`: destination, source."""
    src, sport, dst, dport, protocol = of
    if protocol == TCP:
        segment = bytearray(pack("!HHIIBBHHH", sport, dport, 1, 2, 5 << 4, flags, 512, 0, 0) + body)
        field = tcp.CHECKSUM
    else:
        segment = bytearray(pack("!HHHH", sport, dport, 8 + len(body), 0) + body)
        field = udp.CHECKSUM
    total = checksum(segment, pseudo_header(src, dst, ipv4.IpProto(protocol), len(segment)))
    pack_into("!H", segment, field, total or (udp.ZERO if protocol == UDP else 0))
    length = ipv4.LENGTH + len(segment)
    header = bytearray(pack("!BBHHHBBH4s4s", 0x45, 0, length, 7, 0, ttl, protocol, 0, src, dst))
    return bytearray(ethernet.HEADER.pack(*macs, ethernet.IPV4)) + fixed(header) + segment


def fixed(header: bytearray) -> bytearray:
    """An IPv4 header with its checksum put right."""
    pack_into("!H", header, ipv4.CHECKSUM, 0)
    pack_into("!H", header, ipv4.CHECKSUM, checksum(header))
    return header


def refix(frame: bytearray) -> None:
    """Put the checksum of the IPv4 header of a frame right, where there is one."""
    if len(frame) >= IP + ipv4.LENGTH:
        length = max(ipv4.LENGTH, (frame[IP] & 15) * 4)
        frame[IP : IP + length] = fixed(frame[IP : IP + length])


class Segment(NamedTuple):
    """Where TCP or UDP is in a frame, for whoever looks at its checksum."""

    l4: int
    field: int
    length: int
    partial: int
    """The sum of the pseudo-header."""


def segment_of(frame: bytes | bytearray) -> Segment | None:
    """None, where a frame is not whole or is neither; written apart from the product's parser."""
    if len(frame) < IP + 20 or frame[12:14] != b"\x08\0" or frame[IP] >> 4 != 4:
        return None
    l4, (total,) = IP + (frame[IP] & 15) * 4, unpack_from("!H", frame, IP + 2)
    protocol, end = frame[IP + 9], IP + total
    if l4 < IP + 20 or end > len(frame) or unpack_from("!H", frame, IP + 6)[0] & 0x3FFF:
        return None
    if protocol not in (TCP, UDP) or end - l4 < (20 if protocol == TCP else 8):
        return None
    length = end - l4 if protocol == TCP else unpack_from("!H", frame, l4 + 4)[0]
    if length > end - l4 or length < 8:
        return None
    src, dst = bytes(frame[IP + 12 : IP + 16]), bytes(frame[IP + 16 : IP + 20])
    sums = pseudo_header(src, dst, ipv4.IpProto(protocol), length)
    return Segment(l4, l4 + (16 if protocol == TCP else 6), length, sums)


def make_partial(frame: bytearray) -> int:
    """Leave the checksum as a local sender does, for its network card. The offset of the header, or 0."""
    found = segment_of(frame)
    if found is None:
        return 0
    pack_into("!H", frame, found.field, found.partial)
    return found.l4


def completed(frame: bytes) -> bytes:
    """What a network card makes of a frame whose checksum is partial; other frames as they are."""
    found = segment_of(frame)
    if found is None or frame[found.field : found.field + 2] != found.partial.to_bytes(2, "big"):
        return frame
    whole = bytearray(frame)
    pack_into("!H", whole, found.field, 0)
    data = whole[found.l4 : found.l4 + found.length]
    total = ~fold(found.partial + fold(int.from_bytes(data + bytes(len(data) & 1), "big"))) & 0xFFFF
    pack_into("!H", whole, found.field, total or (0xFFFF if frame[IP + 9] == UDP else 0))
    return bytes(whole)


Spoiler = Callable[[Random, bytearray], bytearray]


def _byte(offset: int, *values: int, fix: bool = True) -> Spoiler:
    """Another byte at `offset` of the frame."""

    def spoil(random: Random, frame: bytearray) -> bytearray:
        if offset < len(frame):
            frame[offset] = random.choice(values)
        if fix:
            refix(frame)
        return frame

    return spoil


def _flip(random: Random, frame: bytearray) -> bytearray:
    """One to three bits, anywhere in the headers; half of the time the IPv4 checksum is made right again."""
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(min(len(frame), 60))
        frame[at] ^= 1 << random.randrange(8)
    if random.random() < 0.5:
        refix(frame)
    return frame


def _cut(random: Random, frame: bytearray) -> bytearray:
    return frame[: random.randrange(len(frame))]


def _cut_honestly(random: Random, frame: bytearray) -> bytearray:
    """Cut after the IPv4 header, with a total length that agrees."""
    frame = frame[: random.randrange(min(len(frame), IP + 20), len(frame) + 1)]
    pack_into("!H", frame, IP + ipv4.TOTAL_LENGTH, max(0, len(frame) - IP))
    refix(frame)
    return frame


def _pad(random: Random, frame: bytearray) -> bytearray:
    return frame + random.randbytes(random.randrange(1, 40))


def _total(random: Random, frame: bytearray) -> bytearray:
    """Another total length."""
    total = random.choice((0, 19, 20, 28, 39, 40, 41, 60, 1500, 65535))
    pack_into("!H", frame, IP + ipv4.TOTAL_LENGTH, total)
    refix(frame)
    return frame


def _options(random: Random, frame: bytearray) -> bytearray:
    """One to ten words of IPv4 options, and they are no-operations (RFC 791, section 3.1)."""
    if frame[IP] != ipv4.VERSION_4_NO_OPTIONS:
        return frame
    words = random.randrange(1, 11)
    (total,) = unpack_from("!H", frame, IP + ipv4.TOTAL_LENGTH)
    frame[IP] += words
    pack_into("!H", frame, IP + ipv4.TOTAL_LENGTH, total + 4 * words)
    frame = frame[: IP + 20] + b"\x01" * (4 * words) + frame[IP + 20 :]
    refix(frame)
    return frame


def _fragment(random: Random, frame: bytearray) -> bytearray:
    pack_into("!H", frame, IP + ipv4.FRAGMENT, random.choice((0x2000, 0x0001, 0x1FFF, 0x4000, 0x8000)))
    refix(frame)
    return frame


def _ports(random: Random, frame: bytearray) -> bytearray:
    at = IP + 20 + random.choice((0, 2))
    pack_into("!H", frame, at, random.choice((0, 80, 81, 65535)))
    return frame


def _length(random: Random, frame: bytearray) -> bytearray:
    """UDP's own length; for TCP that is its sequence number."""
    at = IP + 20 + udp.LENGTH
    shorter = unpack_from("!H", frame, at)[0] - 1 & 0xFFFF
    pack_into("!H", frame, at, random.choice((0, 7, 8, 9, shorter, 1500, 65535)))
    return frame


def _no_sum(random: Random, frame: bytearray) -> bytearray:
    """A TCP or UDP checksum that is special, right or not."""
    found = segment_of(frame)
    if found:
        value = random.choice((0, 0, 0xFFFF, found.partial, found.partial ^ 1))
        pack_into("!H", frame, found.field, value)
    return frame


def _to_zero(random: Random, frame: bytearray) -> bytearray:
    """Right checksums that are 0x0000 or 0xffff: the payload is chosen so."""
    found = segment_of(frame)
    if not found or found.length < 24 or not frame[found.field : found.field + 2].strip(b"\0"):
        return frame
    (total,) = unpack_from("!H", frame, found.field)
    at = found.l4 + 20
    (word,) = unpack_from("!H", frame, at)
    pack_into("!H", frame, at, fold(word + total))
    pack_into("!H", frame, found.field, 0xFFFF if frame[IP + 9] == UDP else 0)
    return frame


def _ip_sum(random: Random, frame: bytearray) -> bytearray:
    """The other spelling of an IPv4 checksum of zero, or a wrong one."""
    (old,) = unpack_from("!H", frame, IP + ipv4.CHECKSUM)
    (ident,) = unpack_from("!H", frame, IP + 4)
    if random.random() < 0.7:
        pack_into("!H", frame, IP + 4, fold(ident + old))
        pack_into("!H", frame, IP + ipv4.CHECKSUM, random.choice((0, 0xFFFF)))
    else:
        pack_into("!H", frame, IP + ipv4.CHECKSUM, old ^ random.choice((1, 0x100, 0xFFFF)))
    return frame


SPOILERS: tuple[Spoiler, ...] = (
    _flip,
    _flip,
    _cut,
    _cut_honestly,
    _pad,
    _total,
    _options,
    _options,
    _fragment,
    _ports,
    _length,
    _no_sum,
    _to_zero,
    _to_zero,
    _ip_sum,
    _byte(5, 9, 0xFF, fix=False),  # another machine's MAC
    _byte(11, 2, 3, 0, 0xFF, fix=False),  # source MAC
    _byte(6, 1, 3, 0xFF, fix=False),  # a group's MAC
    _byte(12, 0x86, 0x81, fix=False),  # EtherType
    _byte(13, 0x06, 0xDD, fix=False),
    _byte(IP, 0x44, 0x40, 0x4F, 0x46),  # version and IHL
    _byte(IP, 0x65, 0x55, 0x05),
    _byte(IP + ipv4.TTL, 0, 1, 2),
    _byte(IP + ipv4.TTL, 0, 1),
    _byte(IP + ipv4.PROTOCOL, 1, 47, 132, TCP, UDP),
    _byte(IP + ipv4.SRC, 0, 127, 223, 224, 240, 255),
    _byte(IP + 20 + tcp.OFFSET, 0x00, 0x40, 0x60, 0xF0, fix=False),
)
