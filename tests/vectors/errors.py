"""Vectors of ICMP errors that quote a flow: see make.py, which writes them. scapy computes every sum anew."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.vectors.make import (
    B1,
    B1_MAC,
    B1_V6,
    CLIENT,
    CLIENT_MAC,
    CLIENT_V6,
    OUR_MAC,
    OUR_MAC_1,
    SH_MAC,
    VIP,
    VIP_V6,
    Story,
    dsr,
    fixed,
    nat,
    nat_v6,
    syn,
    to_vip,
    to_vip_v6,
)

ROUTER, ROUTER_V6 = "198.51.100.9", "2001:db8:9::9"
INNER, INNER_V6 = "10.78.0.254", "2001:db8:78::fe"
BODY = bytes(range(200))


def error(kind: Packet, quoted: Packet, cut: int = 548, to: str = VIP, **ip: Any) -> Packet:
    """An error that comes from the clients' side to the VIP; `cut`: bytes of the quote."""
    whole = Raw(bytes(fixed(Ether() / quoted))[14 : 14 + cut])
    fields: dict[str, Any] = {"src": ROUTER, "dst": to, "id": 3, "ttl": 60} | ip
    return fixed(Ether(src=CLIENT_MAC, dst=OUR_MAC) / IP(**fields) / kind / whole)


def error_v6(kind: Packet, quoted: Packet, cut: int = 1232, to: str = VIP_V6, **ip: Any) -> Packet:
    """The same for IPv6."""
    whole = Raw(bytes(fixed(Ether() / quoted))[14 : 14 + cut])
    fields: dict[str, Any] = {"src": ROUTER_V6, "dst": to, "hlim": 60} | ip
    return fixed(Ether(src=CLIENT_MAC, dst=OUR_MAC) / IPv6(**fields) / kind / whole)


def hop(frame: Packet, src: str, dst: str) -> Packet:
    """The same frame from one MAC address to another."""
    out = frame.copy()
    out.src, out.dst = src, dst
    return fixed(out)


def stories() -> list[Story]:
    """All of them."""
    return [*_v4(), *_v6()]


def _v4() -> list[Story]:
    needed = ICMP(type=3, code=4, nexthopmtu=1300)
    first, dns = fixed(to_vip(syn())), fixed(to_vip(UDP(sport=5353, dport=53) / Raw(b"query")))
    reply = IP(src=VIP, dst=CLIENT, id=77, flags="DF", ttl=55) / TCP(sport=80, dport=41022) / Raw(BODY)
    inside = IP(src=B1, dst=CLIENT, id=77, flags="DF", ttl=55) / TCP(sport=8080, dport=41022) / Raw(BODY)
    answer = IP(src=VIP, dst=CLIENT, id=78) / UDP(sport=53, dport=5353) / Raw(BODY)
    answer_inside = IP(src=B1, dst=CLIENT, id=78) / UDP(sport=5300, dport=5353) / Raw(BODY)
    loose = IP(src=VIP, dst=CLIENT, id=78, options=b"\x94\x04\0\0") / UDP(sport=53, dport=5353, chksum=0)
    loose_inside = IP(src=B1, dst=CLIENT, id=78, options=b"\x94\x04\0\0") / UDP(
        sport=5300, dport=5353, chksum=0
    )
    sent = IP(src=CLIENT, dst=B1, id=5, ttl=63) / TCP(sport=41022, dport=8080) / Raw(BODY)
    sent_outside = IP(src=CLIENT, dst=VIP, id=5, ttl=63) / TCP(sport=41022, dport=80) / Raw(BODY)
    to_client: dict[str, Any] = {"to": CLIENT, "src": INNER}
    late = IP(src=VIP, dst=CLIENT, id=77, frag=100) / Raw(BODY)
    other = IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=99) / Raw(BODY)
    to_nobody = IP(src=VIP, dst=CLIENT) / TCP(sport=81, dport=41022) / Raw(BODY)
    to_martian = IP(src=VIP, dst="127.0.0.1") / TCP(sport=80, dport=41022) / Raw(BODY)
    segment = fixed(to_vip(TCP(sport=41022, dport=80, flags="A", seq=1001, ack=1)))
    in_nat = hop(error(needed, sent, **to_client), B1_MAC, OUR_MAC_1)
    return [
        Story("error_dsr", "dsr", "A router cannot pass what a backend sent in the VIP's name: it is told.")
        .step(first, "forward", dsr(first))
        .step(error(needed, reply), "icmp_error", dsr(error(needed, reply)))
        .step(error(needed, reply, 28), "icmp_error", dsr(error(needed, reply, 28)), note="ports suffice")
        .step(error(needed, reply, 27), "drop_icmp", note="not even those")
        .step(error(needed, reply, ttl=1), "icmp_error", dsr(error(needed, reply, ttl=1)))
        .step(error(needed, other), "drop_icmp", note="a flow that is none")
        .step(error(needed, late), "drop_icmp", note="a fragment that is not the first")
        .step(error(needed, reply, src="127.0.0.1"), "drop_martian")
        .step(error(ICMP(type=4), reply), "drop_protocol", note="source quench: RFC 6633")
        .step(error(ICMP(type=5), reply), "drop_protocol", note="redirect")
        .step(error(needed, sent_outside), "drop_icmp", note="quotes what the VIP never sent"),
        Story("error_dsr_ring", "dsr-sh", "No entry, as after a restart: the ring tells.")
        .step(error(needed, reply), "icmp_error", dsr(error(needed, reply), SH_MAC))
        .step(error(needed, to_nobody), "drop_icmp", note="no service has that port")
        .step(error(needed, to_martian), "drop_icmp", note="no client has that address")
        .step(segment, "forward", dsr(segment, SH_MAC), note="to the same")
        .step(error(needed, reply), "icmp_error", dsr(error(needed, reply), SH_MAC), note="now by its entry"),
        Story("error_nat", "nat", "Translated outside and inside, with all sums (RFC 5508, section 4).")
        .step(first, "forward", nat(first), out_arm=1)
        .step(dns, "forward", nat(dns, dport=5300), out_arm=1)
        .step(
            error(needed, reply),
            "icmp_error",
            hop(error(needed, inside, to=B1, ttl=59), OUR_MAC_1, B1_MAC),
            out_arm=1,
        )
        .step(
            error(ICMP(type=11, code=1), answer, 28),
            "icmp_error",
            hop(error(ICMP(type=11, code=1), answer_inside, 28, to=B1, ttl=59), OUR_MAC_1, B1_MAC),
            out_arm=1,
            note="eight bytes of UDP hold its sum",
        )
        .step(
            error(ICMP(type=12), loose),
            "icmp_error",
            hop(error(ICMP(type=12), loose_inside, to=B1, ttl=59), OUR_MAC_1, B1_MAC),
            out_arm=1,
            note="options, and no sum (RFC 768)",
        )
        .step(error(needed, reply, ttl=1), "drop_ttl"),
        Story(
            "error_nat_inside",
            "nat",
            "About a request, from a router before the backend: as if from the VIP.",
        )
        .step(first, "forward", nat(first), out_arm=1)
        .step(
            in_nat,
            "icmp_error",
            hop(error(needed, sent_outside, to=CLIENT, src=VIP, ttl=59), OUR_MAC, CLIENT_MAC),
            arm=1,
        )
        .step(
            hop(error(ICMP(type=3, code=3), sent, 28, to=CLIENT, src=B1), B1_MAC, OUR_MAC_1),
            "icmp_error",
            hop(
                error(ICMP(type=3, code=3), sent_outside, 28, to=CLIENT, src=VIP, ttl=59), OUR_MAC, CLIENT_MAC
            ),
            arm=1,
            note="from the backend itself",
        )
        .step(hop(in_nat, CLIENT_MAC, OUR_MAC), "pass_not_ours", note="on the clients' arm")
        .step(hop(error(needed, sent, 20, **to_client), B1_MAC, OUR_MAC_1), "pass_not_ours", arm=1)
        .step(hop(error(needed, sent, ttl=1, **to_client), B1_MAC, OUR_MAC_1), "drop_ttl", arm=1),
    ]


def _v6() -> list[Story]:
    big = ICMPv6PacketTooBig(mtu=1300)
    first, dns = fixed(to_vip_v6(syn())), fixed(to_vip_v6(UDP(sport=5353, dport=53) / Raw(b"query")))
    reply = IPv6(src=VIP_V6, dst=CLIENT_V6) / TCP(sport=80, dport=41022) / Raw(BODY)
    inside = IPv6(src=B1_V6, dst=CLIENT_V6) / TCP(sport=8080, dport=41022) / Raw(BODY)
    options, fragment = IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(id=7, m=1)
    answer = IPv6(src=VIP_V6, dst=CLIENT_V6) / options / fragment / UDP(sport=53, dport=5353) / Raw(BODY)
    answer_inside = (
        IPv6(src=B1_V6, dst=CLIENT_V6) / options / fragment / UDP(sport=5300, dport=5353) / Raw(BODY)
    )
    late = IPv6(src=VIP_V6, dst=CLIENT_V6) / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(BODY)
    sent = IPv6(src=CLIENT_V6, dst=B1_V6, hlim=63) / TCP(sport=41022, dport=8080) / Raw(BODY)
    outside = IPv6(src=CLIENT_V6, dst=VIP_V6, hlim=63) / TCP(sport=41022, dport=80) / Raw(BODY)
    unreachable = ICMPv6DestUnreach(code=4)
    return [
        Story("error_v6", "nat-v6", "The same for IPv6: its sum covers the outer addresses too (RFC 4443).")
        .step(first, "forward", nat_v6(first), out_arm=1)
        .step(dns, "forward", nat_v6(dns, dport=5300), out_arm=1)
        .step(
            error_v6(big, reply),
            "icmp_error",
            hop(error_v6(big, inside, to=B1_V6, hlim=59), OUR_MAC_1, B1_MAC),
            out_arm=1,
        )
        .step(
            error_v6(ICMPv6TimeExceeded(code=1), answer, 64),
            "icmp_error",
            hop(
                error_v6(ICMPv6TimeExceeded(code=1), answer_inside, 64, to=B1_V6, hlim=59), OUR_MAC_1, B1_MAC
            ),
            out_arm=1,
            note="a first fragment behind an option, cut after the ports",
        )
        .step(error_v6(big, late), "drop_icmp")
        .step(error_v6(big, reply, 39), "drop_icmp")
        .step(
            hop(error_v6(unreachable, sent, to=CLIENT_V6, src=B1_V6), B1_MAC, OUR_MAC_1),
            "icmp_error",
            hop(error_v6(unreachable, outside, to=CLIENT_V6, src=VIP_V6, hlim=59), OUR_MAC, CLIENT_MAC),
            arm=1,
        ),
    ]
