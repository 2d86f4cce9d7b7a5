"""Vectors of what is too long for a link: see make.py, which writes them.

scapy cuts the packets here, and makes the errors.
"""

from __future__ import annotations

from collections.abc import Iterable

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet import fragment as cut_by_scapy
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.vectors.make import (
    L4,
    OUR_MAC_1,
    VIP,
    VIP_V6,
    Story,
    dsr,
    fixed,
    from_backend,
    in_front,
    nat,
    nat_reply,
    partial_sum,
    syn,
    to_vip,
    to_vip_v6,
)

BODY = bytes(range(256)) * 6


def numbered(frames: Iterable[Packet], ident: int) -> list[Packet]:
    """Fragments with another identification, which they get with another source."""
    out = [frame.copy() for frame in frames]
    for frame in out:
        frame[IP].id = ident
        del frame[IP].chksum
    return [fixed(frame) for frame in out]


def pieces(frame: Packet, mtu: int) -> list[bytes]:
    """The frame's packet, cut by scapy into fragments of at most `mtu` bytes; options in all of them."""
    room = (mtu - frame[IP].ihl * 4) // 8 * 8
    parts = cut_by_scapy(frame[IP], fragsize=room)  # type: ignore[no-untyped-call]
    return [bytes(Ether(src=frame.src, dst=frame.dst) / each) for each in parts]


def told(frame: Packet, mtu: int, vip: str = VIP) -> Packet:
    """The error about a packet, as a router sends it: RFC 1812, section 4.3.2."""
    ip = IP(tos=0xC0, id=0, flags="DF", src=vip, dst=frame[IP].src)
    quoted = Raw(bytes(frame[IP])[: 576 - 28])
    message = ICMP(type=3, code=4, nexthopmtu=mtu) / quoted
    made: Packet = fixed(Ether(src=frame.dst, dst=frame.src) / ip / message)
    return made


def told_v6(frame: Packet, mtu: int) -> Packet:
    """RFC 4443, section 3.2."""
    quoted = Raw(bytes(frame[IPv6])[: 1280 - 48])
    ip = IPv6(src=VIP_V6, dst=frame[IPv6].src, hlim=64)
    made: Packet = fixed(Ether(src=frame.dst, dst=frame.src) / ip / ICMPv6PacketTooBig(mtu=mtu) / quoted)
    return made


def stories() -> list[Story]:
    """All of them."""
    first = fixed(to_vip(syn()))
    ack = TCP(sport=41022, dport=80, flags="A", seq=1001, ack=1)
    large = fixed(to_vip(ack / Raw(BODY[:1460]), flags="DF"))
    fits = fixed(to_vip(ack / Raw(BODY[: 576 - 40]), flags="DF"))
    loose = fixed(to_vip(ack / Raw(BODY[:1460])))
    dns = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(BODY[:1001])))
    more = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(BODY[:1001]), id=8))
    super_frame = fixed(to_vip(ack / Raw(BODY), flags="DF"))
    noops = fixed(to_vip(ack / Raw(BODY[:1000]), options=[IPOption(b"\x01"), IPOption(b"\x94\x04\0\0")]))
    v6 = fixed(to_vip_v6(UDP(sport=5353, dport=53) / Raw(BODY[:1430])))
    two = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(BODY[:1400])))
    one_of_two = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(BODY[:700])))
    other_of_two = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(BODY[700:1400]), id=one_of_two[IP].id + 1))
    answer = fixed(from_backend(UDP(sport=5300, dport=5353) / Raw(BODY[:1501])))
    own = {"own": OUR_MAC_1}
    enclosed = map(Ether, pieces(loose, 576 - 20))
    partial_more = partial_sum(more)
    return [
        Story("too_big", "dsr-narrow", "A link of 576 bytes, and a packet with DF: its sender is told.")
        .step(first, "forward", dsr(first, **own), out_arm=1)
        .step(fits, "forward", dsr(fits, **own), out_arm=1, note="576 bytes")
        .step(large, "drop_too_big", made=[told(large, 576)])
        .step(super_frame, "drop_too_big", made=[told(super_frame, 576)], segment=1448)
        .step(super_frame, "forward", dsr(super_frame, **own), out_arm=1, segment=536),
        Story("too_big_nat", "nat-narrow", "In nat, what is quoted is the packet as the client sent it.")
        .step(first, "forward", nat(first), out_arm=1)
        .step(large, "drop_too_big", made=[told(large, 576)]),
        Story("too_big_v6", "nat-narrow-v6", "IPv6 is never cut on its way (RFC 8201).").step(
            v6, "drop_too_big", made=[told_v6(v6, 1280)]
        ),
        Story("fragmented", "dsr-narrow", "Without DF it is cut (RFC 791, section 3.2).")
        .step(first, "forward", dsr(first, **own), out_arm=1)
        .step(dns, "fragmented", made=pieces(dsr(dns, **own), 576), out_arm=1)
        .step(loose, "fragmented", made=pieces(dsr(loose, **own), 576), out_arm=1)
        .step(noops, "fragmented", made=pieces(dsr(noops, **own), 576), out_arm=1, note="options")
        .step(
            partial_sum(two),
            "fragmented",
            made=[each for d in (one_of_two, other_of_two) for each in pieces(dsr(d, **own), 576)],
            out_arm=1,
            csum_start=L4,
            segment=700,
            note="two datagrams, which the card would have made of it",
        ),
        Story("tunnel_fragmented", "tunnels-narrow", "What is cut for a tunnel: a number for each piece.")
        .step(first, "forward", in_front(first, 4))
        .step(
            loose, "fragmented", made=[in_front(each, 4, number_of=n) for n, each in enumerate(enclosed, 1)]
        ),
        Story("fragmented_nat", "nat-narrow", "The datagram is translated, then cut: one checksum for all.")
        .step(dns, "fragmented", made=pieces(nat(dns, dport=5300), 576), out_arm=1)
        .step(
            partial_more,
            "fragmented",
            made=pieces(nat(more, dport=5300), 576),
            out_arm=1,
            csum_start=L4,
            note="a partial sum is completed, for there is no card to do it",
        )
        .step(
            answer,
            "fragmented",
            made=[
                bytes(each)
                for each in numbered(map(Ether, pieces(nat_reply(answer, sport=53), 1500)), 0x9E37)
            ],
            arm=1,
            note="several backends answer in the VIP's name: an identification of its own (RFC 6864)",
        ),
    ]
