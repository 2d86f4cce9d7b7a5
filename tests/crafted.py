"""Frames by hand: built, made partial, completed, and spoiled in every way we know.

With struct and nothing else, since scapy needs 100 us for a frame. What is
read here of a frame is read apart from the product's parser.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from struct import pack, pack_into, unpack_from
from typing import NamedTuple

from l4raw.wire import ethernet, ipv4, ipv6, tcp, udp
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

    def flipped(self) -> Tuple5:
        """What goes the other way."""
        return Tuple5(self.dst, self.dport, self.src, self.sport, self.protocol)


def tagged(frame: bytes, tci: int, tpid: int = ethernet.VLAN) -> bytes:
    """The frame with a tag, in front of those that it has."""
    return bytes(frame[:12]) + pack("!HH", tpid, tci) + bytes(frame[12:])


def untagged(frame: bytes) -> bytes:
    """The frame without its 802.1Q tag, if it has one."""
    return frame[:12] + frame[16:] if frame[12:14] == b"\x81\0" else frame


def error_about(
    random: Random,
    quoted: bytes | bytearray,
    macs: tuple[bytes, bytes],
    src: bytes,
    dst: bytes,
    mtu: int | None = None,
) -> bytearray:
    """An ICMP error from `src` to `dst` with some of the quoted packet, and right checksums.

    `mtu`: it tells this one; None: it is of any kind.
    """
    is_v4 = len(src) == 4
    kind, code = random.choice((3, 3, 11, 12, 5) if is_v4 else (1, 2, 3, 4, 127)), random.randrange(4)
    if mtu is not None:
        kind, code = (3, 4) if is_v4 else (2, 0)
    shortest = (20 if is_v4 else 40) + random.choice((-1, 4, 7, 8))
    cut = random.choice((shortest, 60, 548, 1200))
    message = bytearray(pack("!BBHI", kind, code, 0, 1300 if mtu is None else mtu) + quoted[:cut])
    ttl = random.choice((1, 64, 64, 64))
    if is_v4:
        pack_into("!H", message, 2, checksum(message))
        start = (0x45, 0xC0, ipv4.LENGTH + len(message), 9, 0, ttl, ipv4.ICMP)
        header = bytearray(pack("!BBHHHBBH4s4s", *start, 0, src, dst))
        return bytearray(ethernet.HEADER.pack(*macs, ethernet.IPV4)) + fixed(header) + message
    pack_into("!H", message, 2, checksum(message, pseudo_header(src, dst, ipv6.ICMPV6, len(message))))
    ip = pack("!IHBB16s16s", 6 << 28, len(message), ipv6.ICMPV6, ttl, src, dst)
    return bytearray(ethernet.HEADER.pack(*macs, ethernet.IPV6) + ip) + message


def build(
    of: Tuple5,
    macs: tuple[bytes, bytes],
    flags: int = tcp.ACK,
    ttl: int = 64,
    body: bytes = b"",
    seq: int = 1,
    ack: int = 2,
) -> bytearray:
    """A frame with right checksums; `macs`: destination, source."""
    src, sport, dst, dport, protocol = of
    if protocol == TCP:
        segment = bytearray(pack("!HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 512, 0, 0) + body)
        field = tcp.CHECKSUM
    else:
        segment = bytearray(pack("!HHHH", sport, dport, 8 + len(body), 0) + body)
        field = udp.CHECKSUM
    total = checksum(segment, pseudo_header(src, dst, ipv4.IpProto(protocol), len(segment)))
    pack_into("!H", segment, field, total or (udp.ZERO if protocol == UDP else 0))
    if len(src) == 16:
        start = pack("!IHBB16s16s", 6 << 28 | 0x12345, len(segment), protocol, ttl, src, dst)
        return bytearray(ethernet.HEADER.pack(*macs, ethernet.IPV6) + start) + segment
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
    if is_v6(frame):
        return
    if len(frame) >= IP + ipv4.LENGTH:
        length = max(ipv4.LENGTH, (frame[IP] & 15) * 4)
        frame[IP : IP + length] = fixed(frame[IP : IP + length])


def is_v6(frame: bytes | bytearray) -> bool:
    """Whether its EtherType says so."""
    return frame[12:14] == b"\x86\xdd"


class Segment(NamedTuple):
    """Where TCP or UDP is in a frame, for whoever looks at its checksum."""

    l4: int
    field: int
    length: int
    partial: int
    """The sum of the pseudo-header."""


def ends_of(frame: bytes | bytearray) -> tuple[bytes, bytes, int]:
    """Source, destination, protocol of a frame that segment_of() found something in."""
    if is_v6(frame):
        return bytes(frame[IP + 8 : IP + 24]), bytes(frame[IP + 24 : IP + 40]), _past_v6(frame)[0]
    return bytes(frame[IP + 12 : IP + 16]), bytes(frame[IP + 16 : IP + 20]), frame[IP + 9]


_LENGTHS = {0: (8, 8), 43: (8, 8), 60: (8, 8), 44: (8, 0), 51: (8, 4)}
"""Of an IPv6 extension header: bytes, and bytes for each unit of its second byte."""


def _past_v6(frame: bytes | bytearray) -> tuple[int, int]:
    """Protocol and offset after up to six extension headers; protocol 59 (none) where there is no segment."""
    protocol, at = frame[IP + 6], IP + 40
    end = at + unpack_from("!H", frame, IP + 4)[0]
    for _ in range(6):
        if protocol not in _LENGTHS:
            break
        if at + 8 > min(end, len(frame)):
            return 59, at
        least, unit = _LENGTHS[protocol]
        is_fragment = protocol == 44 and unpack_from("!H", frame, at + 2)[0] & 0xFFF9
        if is_fragment or (protocol == 43 and frame[at + 3]):
            return 59, at
        protocol, at = frame[at], at + least + unit * frame[at + 1]
    return protocol, at


def segment_of(frame: bytes | bytearray) -> Segment | None:
    """None, where a frame is not whole or is neither; written apart from the product's parser."""
    if is_v6(frame):
        return _segment_of_v6(frame)
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


def _segment_of_v6(frame: bytes | bytearray) -> Segment | None:
    if len(frame) < IP + 40 or frame[IP] >> 4 != 6:
        return None
    end = IP + 40 + unpack_from("!H", frame, IP + 4)[0]
    if end > len(frame):
        return None
    protocol, l4 = _past_v6(frame)
    if protocol not in (TCP, UDP) or end - l4 < (20 if protocol == TCP else 8):
        return None
    length = end - l4 if protocol == TCP else unpack_from("!H", frame, l4 + 4)[0]
    if length > end - l4 or length < 8:
        return None
    src, dst, _ = ends_of(frame)
    sums = pseudo_header(src, dst, ipv4.IpProto(protocol), length)
    return Segment(l4, l4 + (16 if protocol == TCP else 6), length, sums)


def tuple_of(frame: bytes | bytearray) -> Tuple5 | None:
    """Both ends of a frame; None: it has no ports, or is not whole."""
    found = segment_of(frame)
    if found is None:
        return None
    src, dst, protocol = ends_of(frame)
    sport, dport = unpack_from("!HH", frame, found.l4)
    return Tuple5(src, sport, dst, dport, protocol)


def make_partial(frame: bytearray) -> int:
    """Leave the checksum as a local sender does, for its network card. The offset of the header, or 0."""
    found = segment_of(frame)
    if found is None:
        return 0
    pack_into("!H", frame, found.field, found.partial)
    return found.l4


def completed(frame: bytes) -> bytes:
    """What a network card makes of a frame whose checksum is partial; other frames as they are."""
    if frame[12:14] == b"\x81\0" and frame[16:18] != b"\x81\0":
        return frame[:16] + completed(untagged(frame))[12:]
    found = segment_of(frame)
    if found is None or frame[found.field : found.field + 2] != found.partial.to_bytes(2, "big"):
        return frame
    whole = bytearray(frame)
    pack_into("!H", whole, found.field, 0)
    data = whole[found.l4 : found.l4 + found.length]
    total = ~fold(found.partial + fold(int.from_bytes(data + bytes(len(data) & 1), "big"))) & 0xFFFF
    pack_into("!H", whole, found.field, total or (0xFFFF if ends_of(frame)[2] == UDP else 0))
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
    """Cut after the IP header, with a length in it that agrees."""
    if is_v6(frame):
        frame = frame[: random.randrange(min(len(frame), IP + 40), len(frame) + 1)]
        if len(frame) >= IP + 40:
            pack_into("!H", frame, IP + 4, len(frame) - IP - 40)
        return frame
    frame = frame[: random.randrange(min(len(frame), IP + 20), len(frame) + 1)]
    pack_into("!H", frame, IP + ipv4.TOTAL_LENGTH, max(0, len(frame) - IP))
    refix(frame)
    return frame


def _pad(random: Random, frame: bytearray) -> bytearray:
    return frame + random.randbytes(random.randrange(1, 40))


def _total(random: Random, frame: bytearray) -> bytearray:
    """Another total length."""
    total = random.choice((0, 19, 20, 28, 39, 40, 41, 60, 1500, 65535))
    pack_into("!H", frame, IP + (4 if is_v6(frame) else ipv4.TOTAL_LENGTH), total)
    refix(frame)
    return frame


def _options(random: Random, frame: bytearray) -> bytearray:
    """One to ten words of IPv4 options, and they are no-operations (RFC 791, 3.1); or what IPv6 has."""
    if is_v6(frame) and len(frame) >= IP + 40:
        return _extensions(random, frame)
    if frame[IP] != ipv4.VERSION_4_NO_OPTIONS:
        return frame
    words = random.randrange(1, 11)
    (total,) = unpack_from("!H", frame, IP + ipv4.TOTAL_LENGTH)
    frame[IP] += words
    pack_into("!H", frame, IP + ipv4.TOTAL_LENGTH, total + 4 * words)
    frame = frame[: IP + 20] + b"\x01" * (4 * words) + frame[IP + 20 :]
    refix(frame)
    return frame


def _extensions(random: Random, frame: bytearray) -> bytearray:
    """One to eight IPv6 extension headers, whole and in any order; now and then one lies about its length."""
    chain, last = bytearray(), ipv6.LENGTH + IP
    following = frame[IP + 6]
    for _ in range(random.choice((1, 1, 2, 3, 5, 6, 7, 8))):
        kind = random.choice((0, 60, 43, 44, 51))
        units = random.choice((0, 0, 1, 2)) if kind != 44 else 0
        least, unit = _LENGTHS[kind]
        header = bytearray(least + unit * units)
        header[0], header[1] = following, units
        if kind == 43 and random.random() < 0.1:
            header[3] = 1
        if kind == 44 and random.random() < 0.1:
            pack_into("!H", header, 2, random.choice((1, 0x0008, 0xFFF8, 6)))
        if random.random() < 0.02:
            header[1] = random.randrange(256)
        chain, following = header + chain, kind
    frame[IP + 6] = following
    (length,) = unpack_from("!H", frame, IP + 4)
    pack_into("!H", frame, IP + 4, min(length + len(chain), 0xFFFF))
    return frame[:last] + chain + frame[last:]


def _fragment(random: Random, frame: bytearray) -> bytearray:
    if is_v6(frame):
        return _extensions(random, frame) if len(frame) >= IP + 40 else frame
    pack_into("!H", frame, IP + ipv4.FRAGMENT, random.choice((0x2000, 0x0001, 0x1FFF, 0x4000, 0x8000)))
    refix(frame)
    return frame


def tcp_options(random: Random, frame: bytearray) -> bytearray:
    """One to ten words of TCP options, an MSS among them most often; some of them are broken."""
    found = segment_of(frame)
    if not found or ends_of(frame)[2] != TCP or found.length < 20 or frame[found.l4 + 12] >> 4 != 5:
        return frame
    mss = pack("!BBH", 2, 4, random.choice((0, 536, 537, 1221, 1400, 1401, 1460, 9000, 65535)))
    whole = (mss, mss, mss, b"\1", b"\1", b"\0", b"\4\2", b"\3\3\7", b"\x08\x0a" + bytes(8))
    broken = (b"\2\3\1", b"\2\5\0\0\0", b"\2", b"\5\0", b"\5\1", b"\5\x28", b"\2\4\xff")
    options = b""
    for _ in range(random.randrange(1, 6)):
        options += random.choice(broken if random.random() < 0.15 else whole)
    options = options[:40]
    if random.random() < 0.1:
        options = b"\1" * random.choice((1, 5, 9)) + b"\2\4\xff"  # its value ends past the header
    fill = -len(options) % 4
    options = b"\1" * fill + options if random.random() < 0.5 else options + bytes(fill)
    frame[found.l4 + 12] += len(options) // 4 << 4
    frame = frame[: found.l4 + 20] + options + frame[found.l4 + 20 :]
    at = IP + (4 if is_v6(frame) else ipv4.TOTAL_LENGTH)
    pack_into("!H", frame, at, unpack_from("!H", frame, at)[0] + len(options))
    refix(frame)
    return _resummed(frame)


def _resummed(frame: bytearray) -> bytearray:
    """With its checksum right again."""
    make_partial(frame)
    return bytearray(completed(bytes(frame)))


def _ports(random: Random, frame: bytearray) -> bytearray:
    at = IP + (40 if is_v6(frame) else 20) + random.choice((0, 2))
    pack_into("!H", frame, at, random.choice((0, 80, 81, 65535)))
    return frame


def _length(random: Random, frame: bytearray) -> bytearray:
    """UDP's own length; for TCP that is its sequence number."""
    at = IP + (40 if is_v6(frame) else 20) + udp.LENGTH
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
    pack_into("!H", frame, found.field, 0xFFFF if ends_of(frame)[2] == UDP else 0)
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
    _byte(12, 0x86, 0x81, 0x08, fix=False),  # EtherType
    _byte(13, 0x06, 0xDD, fix=False),
    _byte(IP, 0x44, 0x40, 0x4F, 0x46),  # version and IHL
    _byte(IP, 0x65, 0x55, 0x05),
    _byte(IP, 0x60, 0x6B, 0x6F, fix=False),  # IPv6: the upper half of the traffic class
    _byte(IP + ipv4.TOS, 1, 2, 3, 0xB8, 0xFF),  # and of IPv6 the lower
    _byte(IP + ipv4.TTL, 0, 1, 2),
    _byte(IP + ipv4.TTL, 0, 1),
    _byte(IP + ipv6.TTL, 0, 1, 2, fix=False),
    _byte(IP + 6, 0, 43, 44, 51, 58, 59, 60, 135, fix=False),  # IPv6: next header
    _byte(IP + 8, 0, 0xFE, 0xFF, fix=False),  # IPv6: source
    _byte(IP + ipv4.PROTOCOL, 1, 47, 132, TCP, UDP),
    _byte(IP + ipv4.SRC, 0, 127, 223, 224, 240, 255),
    _byte(IP + 20 + tcp.OFFSET, 0x00, 0x40, 0x60, 0xF0, fix=False),
)
