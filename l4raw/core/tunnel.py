"""Tunnels: a client's packet travels to its backend inside of another one (dsr-ipip, dsr-gue).

    dsr-ipip   | Ethernet | IP            | client's packet ...     RFC 2003, RFC 2473, RFC 4213
    dsr-gue    | Ethernet | IP | UDP, GUE | client's packet ...     draft-ietf-intarea-gue

Either IP version travels in either. The backend takes off what is in front and answers the client itself.
Lives here: what is in front, and what changes inside: TTL, and a checksum that a card would have completed.

What is copied outwards: the whole type of service or traffic class, so that queues treat the packet as the
client asked (RFC 2983, section 3.1: uniform), and a router's congestion mark is seen by the backend, which
puts it into the packet that it takes out (RFC 6040, section 4.1: normal mode).

May a router cut the outer packet? Of IPv4 it may if it might cut the inner one (RFC 2003, section 3.1); an
IPv6 packet it may not. A packet that is never cut needs no identification of its own (RFC 6864, section
4.1: 0 here). Another needs one that no other packet from this source to this backend has meanwhile, else its
pieces are mixed with theirs (RFC 791, section 3.2; RFC 4963): a whole packet gets its own, which the client
made different from those of its other packets, plus the flow's number, so that clients are told apart, and
both executors find the same. All fragments of a datagram have one identification, but each is a packet of its
own to the tunnel: in front of each, those that come and those that we cut, there is a new number of ours.

The flow's number is the one's complement sum of the 5-tuple. Anybody could compute it: it is there so that
routers and network cards spread flows by the outer headers (GUE's source port, one of RFC 6335's dynamic
ones; IPv6's flow label, RFC 6438), and gives away nothing of the keyed hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from l4raw.core import rewrite
from l4raw.core.decision import Decision
from l4raw.core.flows import flow_key
from l4raw.core.model import Mode, Service
from l4raw.core.rewrite import Edit
from l4raw.core.tables import BackendEntry, Tables
from l4raw.wire import ethernet, gue, ipv4, ipv6, segments, tcp, udp
from l4raw.wire.abi import DROP_TTL
from l4raw.wire.checksum import ONES, add, checksum, fold, pseudo_header
from l4raw.wire.headers import Frame, Headers, parse
from l4raw.wire.ipv4 import IpProto

_PORTS: Final = slice(0, 36)
"""Addresses and ports in a flow's key."""
_LARGEST: Final = 0xFFFF
_U16: Final = Struct("!H")


class Inside(NamedTuple):
    """A packet that goes into a tunnel, and which."""

    frame: bytes | Frame
    """After all its edits; only the MAC addresses and the EtherType do not matter."""
    headers: Headers
    """As they were before, with which sums are right."""
    number: int
    """Of its flow."""
    service: Service
    backend: BackendEntry
    tables: Tables | None
    """Which number what is in front of fragments; None: it is none."""


def through(
    frame: bytes | Frame, decision: Decision, partial: bool, segment: int, tables: Tables | None = None
) -> Decision:
    """A decision that sends the frame to a backend of a tunnel, with the headers that go in front.

    `partial`: its TCP or UDP checksum holds the pseudo-header's sum only. `segment`: payload bytes of each
    segment of a super-frame, and then those segments go out in its place: no network card could be told to
    cut what is inside of a tunnel that we make. 0: it is none.
    `tables`: not needed for a packet that is no fragment.
    """
    headers, service, backend = decision.headers, decision.service, decision.backend
    if not decision.forwarded or headers is None or service is None or backend is None:
        return decision
    if headers.ttl <= 1:  # RFC 1812, section 5.3.1
        return decision._replace(verdict=DROP_TTL, edits=())
    edited = bytearray(frame)
    edits = (*decision.edits, *_edits(edited, decision, partial))
    rewrite.apply(edited, edits)
    inside = Inside(edited, headers, _number(headers), service.service, backend, tables)
    outer = _outer(inside)
    if not segment or not headers.l4:
        return decision._replace(edits=edits, outer=outer)
    kind = bytes(frame[ethernet.TYPE : headers.ip])
    edited[ethernet.TYPE : headers.ip] = kind
    made = each_enclosed(segments.cut(edited, headers, segment), kind, decision, tables)
    return decision._replace(edits=edits, outer=outer, made=tuple(made))


def each_enclosed(
    frames: Iterable[bytes | bytearray], kind: bytes, decision: Decision, tables: Tables | None
) -> Iterator[bytes]:
    """Parts of a frame, segments or fragments, after its edits, each in the tunnel of its own.

    `kind`: the EtherType of what is inside, behind the tag, if there is one. Fragments of it, and not of the
    packet around it: so either IP version can be in front, and the backend puts them together after it has
    taken that off (RFC 2473, 7.2).
    """
    assert decision.headers and decision.service and decision.backend, "it goes to a backend"
    number, service = _number(decision.headers), decision.service.service
    for part in frames:
        frame = bytearray(part)
        frame[ethernet.TYPE : ethernet.TYPE + len(kind)] = kind
        headers = parse(frame)
        assert isinstance(headers, Headers), "a part of what was parsed"
        outer = _outer(Inside(frame, headers, number, service, decision.backend, tables))
        frame[headers.ip - 2 : headers.ip] = _ETHERTYPES[len(decision.backend.source)]
        yield rewrite.enclosed(frame, outer)


def _number(headers: Headers) -> int:
    """Of a flow: for routers and cards, which spread flows by what is in front."""
    key = flow_key(headers.src, headers.sport, headers.dst, headers.dport, headers.protocol)
    return fold(add(key[_PORTS]))


def _edits(frame: bytearray, decision: Decision, partial: bool) -> list[Edit]:
    """EtherType, TTL, and a partial checksum made whole: no card looks for it inside.

    Writes the decision's edits into `frame`.
    """
    headers, backend = decision.headers, decision.backend
    assert headers and backend, "it goes to a backend"
    edits = []
    old, new = (_ETHERTYPES[len(address)] for address in (headers.src, backend.source))
    if old != new:
        edits.append(("eth.type", headers.ip - 2, old, new))
    edits += rewrite.one_hop(headers, 0)
    if partial and not (headers.protocol == ipv4.UDP and headers.l4_checksum == udp.NO_CHECKSUM):
        rewrite.apply(frame, decision.edits)
        name, at = ("tcp", tcp.CHECKSUM) if headers.protocol == ipv4.TCP else ("udp", udp.CHECKSUM)
        total = checksum(frame[headers.l4 : _end_of_sum(frame, headers)])
        whole = total or (udp.ZERO if name == "udp" else 0)
        old, new = _U16.pack(headers.l4_checksum), _U16.pack(whole)
        edits.append((name + ".checksum", headers.l4 + at, old, new))
    return edits


def _outer(inside: Inside) -> bytes:
    """All headers in front. A length that does not fit is cut off: no interface takes such a packet."""
    service, backend, number = inside.service, inside.backend, inside.number
    src, dst = backend.source, backend.backend.address
    protocol = ipv4.IPV4_INSIDE if len(inside.headers.src) == 4 else ipv4.IPV6_INSIDE
    length = inside.headers.length
    udp_header = b""
    if service.mode is Mode.DSR_GUE:
        length += gue.LENGTH
        ports = gue.FIRST_PORT + number % gue.PORTS, service.tunnel.port
        size = length & _LARGEST
        udp_header = gue.HEADER.pack(*ports, size, udp.NO_CHECKSUM, protocol)
        if len(src) == 16:
            total = pseudo_header(src, dst, ipv4.UDP, size) + add(udp_header) + _sum_of(inside)
            udp_header = gue.HEADER.pack(*ports, size, ~fold(total) & ONES or udp.ZERO, protocol)
        protocol = ipv4.UDP
    make = _ipv4 if len(src) == 4 else _ipv6
    return make(inside, length, protocol) + udp_header


def _ipv4(inside: Inside, length: int, protocol: IpProto) -> bytes:
    """RFC 791. `length` of what follows, which is of that protocol."""
    tos, flags = _traffic_class(inside), ipv4.DONT_FRAGMENT
    if len(inside.headers.src) == 4:
        flags &= _U16.unpack_from(inside.frame, inside.headers.ip + ipv4.FRAGMENT)[0]
    identification = 0 if flags else _identification(inside)
    total, ttl = length + ipv4.LENGTH & _LARGEST, inside.service.tunnel.ttl
    fields = ipv4.VERSION_4_NO_OPTIONS, tos, total, identification, flags, ttl, protocol
    ends = inside.backend.source, inside.backend.backend.address
    return ipv4.WHOLE_HEADER.pack(*fields, checksum(ipv4.WHOLE_HEADER.pack(*fields, 0, *ends)), *ends)


def _identification(inside: Inside) -> int:
    """Of an IPv4 header in front of another one, which routers may cut."""
    if inside.headers.fragment:
        assert inside.tables is not None, "the packet path has tables"
        inside.tables.idents += 1
        return rewrite.identification(inside.tables.idents)
    (own,) = _U16.unpack_from(inside.frame, inside.headers.ip + ipv4.ID)
    return int(own) + inside.number & _LARGEST


def _ipv6(inside: Inside, length: int, protocol: IpProto) -> bytes:
    """RFC 8200; the same."""
    first = 6 << 28 | _traffic_class(inside) << 20 | inside.number
    ends = inside.backend.source, inside.backend.backend.address
    return ipv6.WHOLE_HEADER.pack(first, length & _LARGEST, protocol, inside.service.tunnel.ttl, *ends)


def _traffic_class(inside: Inside) -> int:
    """DSCP and ECN: RFC 2474, RFC 3168."""
    if len(inside.headers.src) == 4:
        return inside.frame[inside.headers.ip + ipv4.TOS]
    return int(_U16.unpack_from(inside.frame, inside.headers.ip)[0]) >> 4 & 0xFF


def _sum_of(inside: Inside) -> int:
    """The sum of the packet inside. Over IPv6, UDP must have a checksum (RFC 8200, section 8.1).

    A header with a right checksum adds up to nothing, and so do TCP or UDP and their pseudo-header: what they
    carry need not be read. If they are wrong, so is this sum, and the backend finds it out at the first look.
    The checksum of a datagram's first fragment is that of all of it, so here all is added up.
    """
    frame, headers, ip = inside.frame, inside.headers, inside.headers.ip
    end = ip + headers.length
    is_summed = headers.protocol != ipv4.UDP or headers.l4_checksum != udp.NO_CHECKSUM
    is_whole = headers.l4 and not headers.fragment and _end_of_sum(frame, headers) == end
    if not (is_summed and is_whole):
        return add(frame[ip:end])
    pseudo = pseudo_header(headers.src, headers.dst, IpProto(headers.protocol), end - headers.l4)
    return ONES - pseudo + (0 if len(headers.src) == 4 else add(frame[ip : headers.l4]))


def _end_of_sum(frame: bytes | Frame, headers: Headers) -> int:
    """Where the bytes end that the TCP or UDP checksum covers: UDP says it itself."""
    if headers.protocol == ipv4.UDP:
        return headers.l4 + int(_U16.unpack_from(frame, headers.l4 + udp.LENGTH)[0])
    return headers.ip + headers.length


_ETHERTYPES: Final = {4: _U16.pack(ethernet.IPV4), 16: _U16.pack(ethernet.IPV6)}
"""By the bytes of an address."""
