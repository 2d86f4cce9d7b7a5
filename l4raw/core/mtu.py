"""What is too long for the link that it should leave by: it is cut, or its sender is told.

RFC 791, section 3.2 says how a router cuts an IPv4 packet; RFC 1191 what it
answers to one that must not be cut; RFC 8201 the same of IPv6, where no
router cuts. An error comes from the VIP: it is the one address of ours that
every client knows and accepts packets from, while the balancer's own may be
private, filtered, or not there at all. A backend gets it from there too.

Errors are limited as Linux limits its own (`icmp_msgs_per_sec`,
`icmp_msgs_burst`): 1,000 a second, 50 at once. The MTU that is meant is the
interface's, and that of the path of a tunnel as far as a router has told it
(path_mtu.py). That of a route is not known; a client's own packet that is too
long for a link further on, a router there tells it (portless.py).

IPv6 senders go no lower than 1280 bytes (RFC 8201, section 4). If a tunnel
leaves less than that of an MTU, the packet around is cut instead: RFC 2473,
section 7.1; over IPv4, RFC 4213, section 3.2.

Lives here: that decision, and the frames that it makes. Must not live here:
where a frame goes (steer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from l4raw.core.admit import martian
from l4raw.core.decision import Decision
from l4raw.core.path_mtu import LEAST, limit
from l4raw.core.rewrite import apply, enclosed, identification, identification_v6, identified
from l4raw.core.tables import Tables
from l4raw.core.tunnel import each_enclosed
from l4raw.wire import ethernet, icmp, ipv4, ipv6, segments, tcp, udp
from l4raw.wire.abi import DROP_TOO_BIG, FRAGMENTED
from l4raw.wire.checksum import ONES, add, checksum, fold, pseudo_header
from l4raw.wire.headers import Frame, Headers, parse
from l4raw.wire.quoted import is_error

_U16: Final = Struct("!H")
_OWN_TTL: Final = 64
_CONTROL: Final = 0xC0
"""Type of Service of an error: precedence 6 (RFC 1812, section 4.3.2.5)."""
_COPIED: Final = 0x80
_END, _NO_OPERATION = 0, 1
"""Options of IPv4: RFC 791, section 3.1."""


def fit(
    frame: bytes | Frame, decision: Decision, arm: int, partial: bool, segment: int, tables: Tables
) -> Decision:
    """`decision`, which sends a frame that came in on `arm`; or what becomes of it, as it is too long.

    `segment`: payload bytes of each segment of a super-frame, which is as long as they are; 0: it is none.
    """
    headers, mtu = decision.headers, limit(decision, tables) - len(decision.outer)
    assert headers is not None, "what is sent was read"
    longest = _of_segment(frame, headers, segment) if segment and headers.l4 else headers.length
    if longest <= mtu:
        return decision
    if len(headers.src) == 4 and not _u16(frame, headers.ip + ipv4.FRAGMENT) & ipv4.DONT_FRAGMENT:
        decision = _numbered(frame, decision, tables)
        made = tuple(_cut(frame, decision, partial, segment, mtu, tables))
        return decision._replace(verdict=FRAGMENTED, made=made)
    if len(headers.src) == 16 and decision.outer and mtu < LEAST[16]:
        if longest <= LEAST[16]:
            made = tuple(_cut_outer(frame, decision, tables))
            return decision._replace(verdict=FRAGMENTED, made=made)
        mtu = LEAST[16]
    return _refused(frame, decision, arm, mtu, tables)


def _of_segment(frame: bytes | Frame, headers: Headers, segment: int) -> int:
    """Bytes of the IP packet that one segment of a super-frame becomes."""
    own = frame[headers.l4 + tcp.OFFSET] >> 4 << 2 if headers.protocol == ipv4.TCP else udp.HEADER_LENGTH
    return headers.l4 - headers.ip + own + segment


def _numbered(frame: bytes | Frame, decision: Decision, tables: Tables) -> Decision:
    """With an identification of ours, if it gets another source: as what came in fragments (fragments.py)."""
    names = [name for name, *_ in decision.edits]
    if "ip.src" not in names or "ip.id" in names:
        return decision
    assert decision.headers is not None, "what is sent was read"
    tables.idents += 1
    return decision._replace(edits=identified(frame, decision.headers, decision.edits, tables.idents))


def _cut(
    frame: bytes | Frame, decision: Decision, partial: bool, segment: int, mtu: int, tables: Tables
) -> Iterator[bytes]:
    """The frame, edited, as fragments of up to `mtu` bytes; a fragment can be cut again.

    Of a super-frame, its segments: of UDP each of them is a datagram.
    """
    headers = decision.headers
    assert headers is not None, "what is sent was read"
    ip = headers.ip
    whole, kind = bytearray(frame[: ip + headers.length]), bytes(frame[ethernet.TYPE : ip])
    apply(whole, decision.edits)
    whole[ethernet.TYPE : ip] = kind
    parts = [whole]
    if segment and headers.l4:
        read = parse(whole)
        assert isinstance(read, Headers), "it was read before"
        parts = segments.cut(whole, read, segment)
    elif partial and not decision.outer:
        _complete(whole, headers)
    pieces = (piece for part in parts for piece in fragments(bytes(part), mtu, ip))
    yield from each_enclosed(pieces, kind, decision, tables) if decision.outer else pieces


def _complete(frame: bytearray, headers: Headers) -> None:
    """Complete a partial checksum: the field is part of what it covers, and has the pseudo-header's part."""
    is_udp = headers.protocol == ipv4.UDP
    at = headers.l4 + (udp.CHECKSUM if is_udp else tcp.CHECKSUM)
    total = ~fold(add(frame[headers.l4 : headers.ip + headers.length])) & ONES
    frame[at : at + 2] = _U16.pack(total or (udp.ZERO if is_udp else 0))


def fragments(frame: bytes, mtu: int, ip: int = ethernet.LENGTH) -> Iterator[bytes]:
    """An IPv4 frame without padding, its header at `ip`, as fragments, of which the last is the shortest.

    A link takes 68 bytes at least (RFC 791, section 3.2); what a tunnel leaves of that may be too few.
    """
    header_length = (frame[ip] & 0xF) * 4
    header, body = frame[ip : ip + header_length], frame[ip + header_length :]
    place = _u16(header, ipv4.FRAGMENT)
    room = max(1, (mtu - header_length) // ipv4.FRAGMENT_UNIT) * ipv4.FRAGMENT_UNIT
    for start in range(0, len(body), room):
        part = body[start : start + room]
        mine = bytearray(header)
        if start:
            _keep_copied(mine)
        more = ipv4.MORE_FRAGMENTS if start + room < len(body) else 0
        _U16.pack_into(mine, ipv4.TOTAL_LENGTH, header_length + len(part))
        _U16.pack_into(mine, ipv4.FRAGMENT, (place | more) + start // ipv4.FRAGMENT_UNIT)
        _U16.pack_into(mine, ipv4.CHECKSUM, 0)
        _U16.pack_into(mine, ipv4.CHECKSUM, checksum(mine))
        yield frame[:ip] + mine + part


def _cut_outer(frame: bytes | Frame, decision: Decision, tables: Tables) -> Iterator[bytes]:
    """What is in a tunnel, as fragments of the packet around it, which the backend puts together first."""
    headers = decision.headers
    assert headers is not None, "what is sent was read"
    mtu, ip = limit(decision, tables), headers.ip
    whole: list[bytes] = list(decision.made)
    if not whole:
        edited = bytearray(frame[: ip + headers.length])
        apply(edited, decision.edits)
        whole = [enclosed(edited, decision.outer)]
    for each in whole:
        if len(each) - ip <= mtu:
            yield each
            continue
        tables.idents += 1
        if each[ip] >> 4 == 4:
            outer = bytearray(each)
            _U16.pack_into(outer, ip + ipv4.ID, identification(tables.idents))
            _U16.pack_into(outer, ip + ipv4.FRAGMENT, 0)
            yield from fragments(bytes(outer), mtu, ip)
        else:
            yield from _fragments_v6(each, mtu, ip, identification_v6(tables.idents))


def _fragments_v6(frame: bytes, mtu: int, ip: int, ident: int) -> Iterator[bytes]:
    """An IPv6 frame of ours, without extension headers, as fragments: RFC 8200, section 4.5."""
    start = ip + ipv6.LENGTH
    body = frame[start:]
    room = max(1, (mtu - ipv6.LENGTH - ipv6.EXTENSION_LENGTH) // ipv4.FRAGMENT_UNIT) * ipv4.FRAGMENT_UNIT
    for at in range(0, len(body), room):
        part = body[at : at + room]
        head = bytearray(frame[:start])
        _U16.pack_into(head, ip + ipv6.PAYLOAD_LENGTH, ipv6.EXTENSION_LENGTH + len(part))
        head[ip + ipv6.NEXT_HEADER] = ipv6.FRAGMENT
        more = ipv6.MORE_FRAGMENTS if at + room < len(body) else 0
        following = frame[ip + ipv6.NEXT_HEADER]
        yield bytes(head) + ipv6.EXTENSION.pack(following, 0, at | more) + ident.to_bytes(4) + part


def _keep_copied(header: bytearray) -> None:
    """Options without the copied flag are in the first fragment only: others have no-operations there."""
    at = ipv4.LENGTH
    while at < len(header) and header[at] != _END:
        size = 1 if header[at] == _NO_OPERATION or at + 1 == len(header) else max(2, header[at + 1])
        if not header[at] & _COPIED:
            end = min(at + size, len(header))
            header[at:end] = bytes([_NO_OPERATION]) * (end - at)
        at += size


def _refused(frame: bytes | Frame, decision: Decision, arm: int, mtu: int, tables: Tables) -> Decision:
    """Dropped. Its sender is told, unless no error may be sent about it: RFC 1812, section 4.3.2.7."""
    headers = decision.headers
    assert headers is not None, "what is sent was read"
    made: tuple[bytes, ...] = ()
    # About a fragment that is not the first neither: its sender could not tell what it was of.
    may = not is_error(headers) and (headers.l4 or not headers.fragment)
    if may and not martian(headers, arm, tables) and tables.errors.take(tables.now):
        vip = decision.service.service.vip if decision.service else headers.dst
        make = _fragmentation_needed if len(headers.src) == 4 else _packet_too_big
        packet = make(bytes(frame[headers.ip : headers.ip + headers.length]), vip, headers.src, mtu)
        kind = frame[ethernet.TYPE : headers.ip]
        made = (headers.src_mac + tables.arms[arm].mac + bytes(kind) + packet,)
    return decision._replace(verdict=DROP_TOO_BIG, edits=(), outer=b"", made=made, arm=arm)


def _fragmentation_needed(packet: bytes, src: bytes, dst: bytes, mtu: int) -> bytes:
    """RFC 1191, section 4: the next hop's MTU is in the last 16 bits. At most 576 bytes."""
    quote = packet[: icmp.MOST[4] - ipv4.LENGTH - icmp.LENGTH]
    message = bytearray(icmp.ERROR.pack(*icmp.FRAGMENTATION_NEEDED, 0, mtu) + quote)
    _U16.pack_into(message, icmp.CHECKSUM, checksum(message))
    start = (0x45, _CONTROL, ipv4.LENGTH + len(message), 0, ipv4.DONT_FRAGMENT, _OWN_TTL, ipv4.ICMP)
    header = bytearray(ipv4.WHOLE_HEADER.pack(*start, 0, src, dst))
    _U16.pack_into(header, ipv4.CHECKSUM, checksum(header))
    return bytes(header + message)


def _packet_too_big(packet: bytes, src: bytes, dst: bytes, mtu: int) -> bytes:
    """RFC 4443, section 3.2. At most 1280 bytes (section 2.4 c); the checksum covers a pseudo-header."""
    quote = packet[: icmp.MOST[6] - ipv6.LENGTH - icmp.LENGTH]
    message = bytearray(icmp.ERROR.pack(*icmp.PACKET_TOO_BIG, 0, mtu) + quote)
    total = checksum(message, pseudo_header(src, dst, ipv6.ICMPV6, len(message)))
    _U16.pack_into(message, icmp.CHECKSUM, total)
    return ipv6.WHOLE_HEADER.pack(6 << 28, len(message), ipv6.ICMPV6, _OWN_TTL, src, dst) + message


def _u16(data: bytes | Frame, offset: int) -> int:
    return int(_U16.unpack_from(data, offset)[0])
