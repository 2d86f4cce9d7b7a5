"""Edits: what forwarding changes in a frame, as values that can be shown, then applied.

The functions here compute edits and change nothing; `apply` writes them. So
`explain` and the packet path cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from l4raw.wire import ethernet, icmp, ipv4, ipv6, tcp, udp
from l4raw.wire.checksum import ONES, update, update_partial
from l4raw.wire.headers import Frame, Headers
from l4raw.wire.quoted import Quoted

Edit = tuple[str, int, bytes, bytes]
"""Field, offset in the frame, old bytes, new bytes of the same length."""
End = tuple[bytes, int]
"""One end of a flow: address of 4 or 16 bytes, and port."""

_TTL_ONE: Final = 0x0100
"""TTL is the upper half of the word that it shares with the protocol."""
_OWN_TTL: Final = 64
"""Of what we send ourselves: RFC 1700, "IP Time To Live Parameter"."""


def apply(frame: Frame, edits: Iterable[Edit]) -> None:
    """Write the new bytes of every edit into `frame`."""
    for _, offset, _, new in edits:
        frame[offset : offset + len(new)] = new


def enclosed(frame: bytes | Frame, outer: bytes) -> bytes:
    """The frame with `outer` between its Ethernet header, tag included, and what follows that."""
    at = ethernet.length(frame)
    return bytes(frame[:at]) + outer + bytes(frame[at:])


def dsr_l2(headers: Headers, src_mac: bytes, dst_mac: bytes) -> tuple[Edit, ...]:
    """Direct server return on one segment: the two MAC addresses and nothing else.

    The destination stays the VIP, which the backend owns. The TTL stays too:
    the datagram has not been routed, only handed on within its segment.
    """
    return (
        ("eth.dst", ethernet.DST, headers.dst_mac, dst_mac),
        ("eth.src", ethernet.SRC, headers.src_mac, src_mac),
    )


def nat(
    headers: Headers,
    src_mac: bytes,
    dst_mac: bytes,
    source: End,
    destination: End,
    partial: bool,
) -> tuple[Edit, ...]:
    """Give the frame another source and destination (address of the same version, port) and route it on.

    RFC 3022 for what is translated, RFC 1812 section 5.3.1 and RFC 8200
    section 3 for the TTL, RFC 1624 for the sums; IPv6 has none of its own.
    `partial`: the TCP or UDP checksum holds the pseudo-header's sum only, for
    a network card to complete.
    """
    src, sport = source
    dst, dport = destination
    l4 = headers.l4
    name, checksum_at = ("tcp", tcp.CHECKSUM) if headers.protocol == ipv4.TCP else ("udp", udp.CHECKSUM)
    edits = [
        ("eth.dst", ethernet.DST, headers.dst_mac, dst_mac),
        ("eth.src", ethernet.SRC, headers.src_mac, src_mac),
    ]
    ip = ipv4 if len(src) == 4 else ipv6
    addresses = 0
    if src != headers.src:
        edits.append(("ip.src", headers.ip + ip.SRC, headers.src, src))
        addresses = int.from_bytes(src) - int.from_bytes(headers.src)
    if dst != headers.dst:
        edits.append(("ip.dst", headers.ip + ip.DST, headers.dst, dst))
        addresses += int.from_bytes(dst) - int.from_bytes(headers.dst)
    # TCP and UDP have their ports in the same place.
    if sport != headers.sport:
        edits.append((name + ".sport", l4 + tcp.SPORT, _u16(headers.sport), _u16(sport)))
    if dport != headers.dport:
        edits.append((name + ".dport", l4 + tcp.DPORT, _u16(headers.dport), _u16(dport)))

    edits += one_hop(headers, addresses)
    l4_sum = headers.l4_checksum
    if l4_sum == udp.NO_CHECKSUM and name == "udp":
        return tuple(edits)
    if partial:
        new_sum = update_partial(l4_sum, addresses)
    else:
        new_sum = update(l4_sum, addresses + sport - headers.sport + dport - headers.dport)
        if new_sum == udp.NO_CHECKSUM and name == "udp":
            new_sum = udp.ZERO
    edits.append((name + ".checksum", l4 + checksum_at, _u16(l4_sum), _u16(new_sum)))
    return tuple(edits)


def one_hop(headers: Headers, addresses: int) -> list[Edit]:
    """A TTL of one less, and what IPv4's checksum makes of that and of a change of the addresses' sum."""
    old, new = _u8(headers.ttl), _u8(headers.ttl - 1)
    if len(headers.src) == 16:
        return [("ip.ttl", headers.ip + ipv6.TTL, old, new)]
    ip_sum = update(headers.ip_checksum, addresses - _TTL_ONE)
    return [
        ("ip.ttl", headers.ip + ipv4.TTL, old, new),
        ("ip.checksum", headers.ip + ipv4.CHECKSUM, _u16(headers.ip_checksum), _u16(ip_sum)),
    ]


def echo(headers: Headers, own_mac: bytes) -> tuple[Edit, ...]:
    """Make an echo request the reply to it: RFC 792, "Echo"; RFC 4443, section 4.2.

    Source and destination change places, which changes no sum; the answer starts with a TTL of its own.
    """
    version = 4 if len(headers.src) == 4 else 6
    ip = ipv4 if version == 4 else ipv6
    old, new = headers.icmp_type, icmp.ECHO_REPLY[version]
    total = update(headers.l4_checksum, new - old << 8)
    # A message of zeros, which no pseudo-header goes with: 0xffff is right, 0 is not.
    if version == 4 and not total:
        total = ONES
    edits = [
        ("eth.dst", ethernet.DST, headers.dst_mac, headers.src_mac),
        ("eth.src", ethernet.SRC, headers.src_mac, own_mac),
        ("ip.src", headers.ip + ip.SRC, headers.src, headers.dst),
        ("ip.dst", headers.ip + ip.DST, headers.dst, headers.src),
        ("ip.ttl", headers.ip + ip.TTL, _u8(headers.ttl), _u8(_OWN_TTL)),
    ]
    if version == 4:
        ip_sum = update(headers.ip_checksum, _OWN_TTL - headers.ttl << 8)
        edits.append(("ip.checksum", headers.ip + ipv4.CHECKSUM, _u16(headers.ip_checksum), _u16(ip_sum)))
    edits.append(("icmp.type", headers.icmp + icmp.TYPE, _u8(old), _u8(new)))
    edits.append(("icmp.checksum", headers.icmp + icmp.CHECKSUM, _u16(headers.l4_checksum), _u16(total)))
    return tuple(edits)


def follow(headers: Headers, first: Iterable[Edit]) -> tuple[Edit, ...]:
    """What the edits of a datagram's first fragment mean for one without ports: addresses and TTL."""
    ip = ipv4 if len(headers.src) == 4 else ipv6
    new = {name: value for name, _, _, value in first}
    edits = [
        ("eth.dst", ethernet.DST, headers.dst_mac, new["eth.dst"]),
        ("eth.src", ethernet.SRC, headers.src_mac, new["eth.src"]),
    ]
    ends = [("ip.src", headers.ip + ip.SRC, headers.src, new.get("ip.src", headers.src))]
    ends += [("ip.dst", headers.ip + ip.DST, headers.dst, new.get("ip.dst", headers.dst))]
    ends = [each for each in ends if each[2] != each[3]]
    if "ip.ttl" not in new:
        return tuple(edits)
    edits += [*ends, ("ip.ttl", headers.ip + ip.TTL, _u8(headers.ttl), _u8(headers.ttl - 1))]
    if ip is ipv4:
        total = update(headers.ip_checksum, _change(ends) - _TTL_ONE)
        edits.append(("ip.checksum", headers.ip + ipv4.CHECKSUM, _u16(headers.ip_checksum), _u16(total)))
    return tuple(edits)


def identification(number: int) -> int:
    """The 16 bits of the IPv4 packet `number` of ours.

    Multiplied by an odd number: all come before one comes again, and two that follow are far apart.
    """
    return number * 0x9E37 & 0xFFFF


def identification_v6(number: int) -> int:
    """The 32 bits of an IPv6 one, likewise."""
    return number * 0x9E37_79B1 & 0xFFFF_FFFF


def identified(
    frame: bytes | Frame, headers: Headers, edits: Iterable[Edit], number: int
) -> tuple[Edit, ...]:
    """`edits` of a fragment, which gets the identification of the datagram `number` of ours."""
    if len(headers.src) == 16:
        at = headers.body - 4
        new = identification_v6(number).to_bytes(4)
        return (*edits, ("ip.id", at, bytes(frame[at : at + 4]), new))
    at = headers.ip + ipv4.ID
    old, new = bytes(frame[at : at + 2]), identification(number).to_bytes(2)
    done = []
    for name, offset, before, after in edits:
        if name == "ip.checksum":
            after = _u16(update(int.from_bytes(after), int.from_bytes(new) - int.from_bytes(old)))
        done.append((name, offset, before, after))
    return (*done, ("ip.id", at, old, new))


def error(
    headers: Headers, quoted: Quoted, outer: tuple[bytes, bytes, bytes, bytes], source: End, destination: End
) -> tuple[Edit, ...]:
    """Translate an ICMP error, and the packet that it quotes, which had `source` and `destination` there.

    `outer`: source and destination MAC, source and destination address of the
    error itself. RFC 5508, section 4; RFC 1624 for the sums. A sum that is
    wrong, because a router lowered the TTL only, stays as wrong as it was.
    """
    src_mac, dst_mac, src, dst = outer
    is_v4 = len(src) == 4
    ip = ipv4 if is_v4 else ipv6
    inside = [
        ("quoted.src", quoted.ip + ip.SRC, quoted.src, source[0]),
        ("quoted.dst", quoted.ip + ip.DST, quoted.dst, destination[0]),
        ("quoted.sport", quoted.l4 + tcp.SPORT, _u16(quoted.sport), _u16(source[1])),
        ("quoted.dport", quoted.l4 + tcp.DPORT, _u16(quoted.dport), _u16(destination[1])),
    ]
    addresses, ports = _change(inside[:2]), _change(inside[2:])
    if is_v4:
        new = update(quoted.ip_checksum, addresses)
        inside.append(("quoted.checksum", quoted.ip + ipv4.CHECKSUM, _u16(quoted.ip_checksum), _u16(new)))
    if quoted.checksum_at:
        new = update(quoted.checksum, addresses + ports)
        if new == udp.NO_CHECKSUM and quoted.protocol == ipv4.UDP:
            new = udp.ZERO
        inside.append(("quoted.l4_checksum", quoted.checksum_at, _u16(quoted.checksum), _u16(new)))
    at = headers.ip
    outside = [("ip.src", at + ip.SRC, headers.src, src), ("ip.dst", at + ip.DST, headers.dst, dst)]
    edits = [
        ("eth.dst", ethernet.DST, headers.dst_mac, dst_mac),
        ("eth.src", ethernet.SRC, headers.src_mac, src_mac),
        *outside,
        ("ip.ttl", headers.ip + ip.TTL, _u8(headers.ttl), _u8(headers.ttl - 1)),
    ]
    # ICMPv6's sum covers the addresses in front of it too, IPv4's header has a sum of its own for them.
    covered = _change(inside)
    if is_v4:
        ip_sum = update(headers.ip_checksum, _change(outside) - _TTL_ONE)
        edits.append(("ip.checksum", headers.ip + ipv4.CHECKSUM, _u16(headers.ip_checksum), _u16(ip_sum)))
    else:
        covered += _change(outside)
    total = update(headers.l4_checksum, covered)
    edits.append(("icmp.checksum", headers.icmp + icmp.CHECKSUM, _u16(headers.l4_checksum), _u16(total)))
    return tuple(each for each in (*edits, *inside) if each[2] != each[3])


def _change(edits: Iterable[Edit]) -> int:
    """How whole words that change change a sum that covers them."""
    return sum(int.from_bytes(new) - int.from_bytes(old) for _, _, old, new in edits)


_u8: Final = Struct("!B").pack
_u16: Final = Struct("!H").pack
