"""Vectors of what routers say of the path of a tunnel: see make.py, which writes them.

scapy makes the errors and cuts the packets.
"""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.vectors.errors import error, error_v6, hop
from tests.vectors.make import B1_MAC, OUR_MAC, Story, fixed, gue, in_front, syn, to_vip, to_vip_v6
from tests.vectors.sizes import BODY, pieces, told, told_v6

SOURCE, SOURCE_V6 = "10.78.0.2", "2001:db8:78::2"


def narrow(outer: Packet, mtu: int) -> Packet:
    """What a router before the backend says of a packet: the link behind it takes so many bytes."""
    kind = ICMP(type=3, code=4, nexthopmtu=mtu)
    return hop(error(kind, fixed(outer).payload, to=SOURCE), B1_MAC, OUR_MAC)


def narrow_v6(outer: Packet, mtu: int) -> Packet:
    """The same of IPv6."""
    return hop(error_v6(ICMPv6PacketTooBig(mtu=mtu), fixed(outer).payload, to=SOURCE_V6), B1_MAC, OUR_MAC)


def cut_outer(frame: Packet, mtu: int, number: int) -> Iterator[Packet]:
    """The packet around it as IPv4 fragments, with the balancer's identification `number`."""
    outer = frame.copy()
    outer[IP].id, outer[IP].flags = number * 0x9E37 & 0xFFFF, 0
    del outer[IP].chksum
    yield from map(Ether, pieces(fixed(outer), mtu))


def cut_outer_v6(frame: Packet, mtu: int, number: int) -> Iterator[Packet]:
    """The same of IPv6."""
    whole = bytes(fixed(frame).payload)
    body, room = whole[40:], (mtu - 48) // 8 * 8
    for start in range(0, len(body), room):
        outer = Ether(src=frame.src, dst=frame.dst) / IPv6(whole[:40])
        outer[IPv6].remove_payload()
        del outer[IPv6].plen
        outer[IPv6].nh = 44
        more, ident = int(start + room < len(body)), number * 0x9E37_79B1 & 0xFFFF_FFFF
        header = IPv6ExtHdrFragment(nh=whole[6], offset=start // 8, m=more, id=ident)
        yield fixed(outer / header / Raw(body[start : start + room]))


def stories() -> list[Story]:
    """All of them."""
    return [_v4(), _believed(), _v6()]


def _v4() -> Story:
    first, large = fixed(to_vip(syn())), _ack(1000, flags="DF")
    loose, small = _ack(1000), _ack(600, flags="DF")
    enclosed = map(Ether, pieces(loose, 700 - 20))
    first_gue, large_gue = fixed(to_vip(syn(dport=54))), _ack(1240, dport=54, flags="DF")
    another = gue(large_gue, 6)
    another[UDP].sport = 1000
    why = "A router before the backend says that a packet of ours is too long: so the client is told."
    return (
        Story("tunnel_path_mtu", "tunnels", why)
        .step(first, "forward", in_front(first, 4))
        .step(large, "forward", in_front(large, 4))
        .step(narrow(in_front(large, 4), 700), "pass_path_mtu")
        .step(large, "drop_too_big", made=[told(large, 680)])
        .step(small, "forward", in_front(small, 4), note="700 bytes in all, or less")
        .step(
            loose,
            "fragmented",
            made=[in_front(each, 4, number_of=n) for n, each in enumerate(enclosed, 1)],
            note="without DF it is cut",
        )
        .step(
            fixed(to_vip(syn(sport=9) / Raw(BODY[:700]), flags="DF")),
            "drop_too_big",
            made=[told(fixed(to_vip(syn(sport=9) / Raw(BODY[:700]), flags="DF")), 680)],
            note="of a new flow",
        )
        .step(first_gue, "forward", gue(first_gue, 6), note="another path to it")
        .step(large_gue, "forward", gue(large_gue, 6))
        .step(narrow_v6(another, 1280), "pass_not_ours", note="no port of ours")
        .step(narrow_v6(gue(large_gue, 6), 1280), "pass_path_mtu")
        .step(large_gue, "drop_too_big", made=[told(large_gue, 1280 - 52)])
    )


def _ack(size: int, dport: int = 80, **ip: str) -> Packet:
    """A segment with so many bytes of payload."""
    return fixed(to_vip(TCP(sport=41022, dport=dport, flags="A", seq=1001, ack=1) / Raw(BODY[:size]), **ip))


def _believed() -> Story:
    first, large = fixed(to_vip(syn())), _ack(1000, flags="DF")
    outer = in_front(large, 4)
    spoiled = bytearray(bytes(narrow(outer, 700)))
    spoiled[-1] ^= 1
    other = IP(src=SOURCE, dst="10.78.0.99", proto=4) / Raw(BODY[:1000])
    query = IP(src=SOURCE, dst="10.78.0.11") / UDP(sport=49152, dport=6080) / Raw(BODY[:1000])
    client = IP(src="10.78.0.3", dst="10.78.0.11", proto=4) / Raw(BODY[:1000])
    longer = IP(src=SOURCE, dst="10.78.0.11", proto=4, len=1501) / Raw(BODY[:1000])
    why = "Anybody can send an error: one that does not fit is not believed, nor less than 552 bytes."
    return (
        Story("tunnel_path_mtu_believed", "tunnels", why)
        .step(first, "forward", in_front(first, 4))
        .step(bytes(spoiled), "pass_not_ours", note="a wrong checksum")
        .step(narrow(Ether() / other, 700), "pass_not_ours", note="to no backend")
        .step(narrow(Ether() / query, 700), "pass_not_ours", note="in no tunnel of this backend")
        .step(narrow(Ether() / client, 700), "pass_not_ours", note="from another source")
        .step(narrow(outer, 1060), "pass_not_ours", note="it was no longer than that")
        .step(narrow(Ether() / longer, 700), "pass_not_ours", note="longer than our link takes")
        .step(hop(error(ICMP(type=11), outer.payload, to=SOURCE), B1_MAC, OUR_MAC), "pass_not_ours")
        .step(large, "forward", outer, note="nothing was believed")
        .step(narrow(outer, 0), "pass_path_mtu", note="a router from before RFC 1191")
        .step(large, "drop_too_big", made=[told(large, 552 - 20)])
        .step(narrow(outer, 700), "pass_path_mtu", note="a path grows by age alone")
        .step(large, "drop_too_big", made=[told(large, 552 - 20)])
    )


def _v6() -> Story:
    first, third = fixed(to_vip_v6(syn())), fixed(to_vip_v6(syn(dport=81)))
    ack, other = (TCP(sport=41022, dport=port, flags="A", seq=1001, ack=1) for port in (80, 81))
    large, small = fixed(to_vip_v6(ack / Raw(BODY[:1400]))), fixed(to_vip_v6(ack / Raw(BODY[:1220])))
    large_81, small_81 = (
        fixed(to_vip_v6(other / Raw(BODY[:1390]))),
        fixed(to_vip_v6(other / Raw(BODY[:1220]))),
    )
    why = "A path leaves less than any IPv6 sender's least: the packet around is cut (RFC 2473, 7.1)."
    return (
        Story("tunnel_path_mtu_v6", "tunnels-v6", why)
        .step(first, "forward", in_front(first, 4))
        .step(third, "forward", in_front(third, 6, ttl=3))
        .step(narrow(in_front(large, 4), 576), "pass_path_mtu")
        .step(large, "drop_too_big", made=[told_v6(large, 1280)])
        .step(small, "fragmented", made=list(cut_outer(in_front(small, 4), 576, 1)), note="1280 bytes")
        .step(narrow_v6(in_front(large_81, 6), 1279), "pass_not_ours", note="RFC 8201, section 4: discarded")
        .step(narrow_v6(in_front(large_81, 6), 1280), "pass_path_mtu")
        .step(large_81, "drop_too_big", made=[told_v6(large_81, 1280)])
        .step(small_81, "fragmented", made=list(cut_outer_v6(in_front(small_81, 6, ttl=3), 1280, 2)))
    )
