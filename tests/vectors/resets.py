"""Vectors of segments whose flow is not known, and of resets that answer them: see make.py, which writes it.

Which numbers a reset has is written here by hand, from RFC 9293, section 3.10.7.1; scapy makes its bytes.
"""

from __future__ import annotations

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.vectors.make import (
    CLIENT_MAC,
    L4,
    OUR_MAC,
    SNAT,
    VIP,
    Story,
    dsr,
    fixed,
    partial_sum,
    syn,
    to_vip,
    to_vip_v6,
)

BODY = bytes(range(101))


def reset(frame: Packet, flags: str, seq: int, ack: int) -> Packet:
    """The reset that comes back from the VIP and port that the frame went to."""
    tcp = TCP(sport=frame[TCP].dport, dport=frame[TCP].sport, flags=flags, seq=seq, ack=ack, window=0)
    if IPv6 in frame:
        ip: Packet = IPv6(src=frame[IPv6].dst, dst=frame[IPv6].src, hlim=64)
    else:
        ip = IP(src=frame[IP].dst, dst=frame[IP].src, id=0, flags="DF", ttl=64)
    return fixed(Ether(src=OUR_MAC, dst=CLIENT_MAC) / ip / tcp)


def segment(flags: str, body: bytes = b"", seq: int = 1001, ack: int = 0) -> Packet:
    """What a client sends, who thinks that it is connected."""
    tcp = TCP(sport=41022, dport=80, flags=flags, seq=seq, ack=ack)
    return tcp / Raw(body) if body else tcp


def stories() -> list[Story]:
    """All of them."""
    why = "In mid-stream NAT's state is lost: never a guess. A SYN with FIN, RST or ACK opens none either."
    ack, data = fixed(to_vip(segment("A", ack=5))), fixed(to_vip(segment("PA", BODY, ack=0xFFFFFFFF)))
    fin, bare = fixed(to_vip(segment("FA", ack=7))), fixed(to_vip(segment("", BODY)))
    last = fixed(to_vip(segment("F", BODY, seq=0xFFFFFFFF)))
    both, stray = fixed(to_vip(segment("SF", BODY[:1]))), fixed(to_vip(syn(flags="SA", ack=9)))
    odd = bytearray(bytes(to_vip(segment("A", BODY))))
    odd[-1] ^= 1
    v6, tail = fixed(to_vip_v6(segment("A", BODY, ack=6))), fixed(to_vip_v6(segment("F", BODY[:9])))
    behind = fixed(to_vip_v6(segment("", BODY), IPv6ExtHdrDestOpt()))
    options = fixed(to_vip(syn(flags="P") / Raw(BODY), options=b"\x94\x04\0\0"))
    partial = partial_sum(bare)
    inside = fixed(to_vip(segment("A", ack=3)))
    return [
        Story("no_flow", "nat", why)
        .step(ack, "drop_no_flow", made=[reset(ack, "R", 5, 0)])
        .step(data, "drop_no_flow", made=[reset(data, "R", 0xFFFFFFFF, 0)], note="where it acknowledged to")
        .step(fin, "drop_no_flow", made=[reset(fin, "R", 7, 0)])
        .step(stray, "drop_no_flow", made=[reset(stray, "R", 9, 0)])
        .step(bare, "drop_no_flow", made=[reset(bare, "RA", 0, 1102)], note="no ACK: all is acknowledged")
        .step(last, "drop_no_flow", made=[reset(last, "RA", 0, 101)], note="FIN is a byte; it wraps")
        .step(both, "drop_no_flow", made=[reset(both, "RA", 0, 1004)], note="SYN and FIN are two")
        .step(options, "drop_no_flow", made=[reset(options, "RA", 0, 1101)], note="of IP and of TCP")
        .step(partial, "drop_no_flow", made=[reset(bare, "RA", 0, 1102)], csum_start=L4)
        .step(bytes(ack) + b"\xa5" * 6, "drop_no_flow", made=[reset(ack, "R", 5, 0)], note="padding"),
        Story("no_flow_unanswered", "nat", "What gets no reset: a reset, what is damaged, what nobody sent.")
        .step(fixed(to_vip(segment("R"))), "drop_no_flow")
        .step(fixed(to_vip(segment("RA", ack=5))), "drop_no_flow")
        .step(fixed(to_vip(syn(flags="SR"))), "drop_no_flow")
        .step(bytes(odd), "drop_no_flow", note="wrong checksum")
        .step(fixed(to_vip(segment("A", BODY[:4]), flags="MF")), "drop_no_flow", note="a fragment")
        .step(fixed(to_vip(segment("A"), src=VIP)), "drop_martian")
        .step(fixed(to_vip(segment("A"), ttl=1)), "drop_ttl"),
        Story("no_flow_v6", "nat-v6", "The same for IPv6, also behind an extension header.")
        .step(v6, "drop_no_flow", made=[reset(v6, "R", 6, 0)])
        .step(tail, "drop_no_flow", made=[reset(tail, "RA", 0, 1011)])
        .step(behind, "drop_no_flow", made=[reset(behind, "RA", 0, 1102)])
        .step(fixed(to_vip_v6(segment("R"))), "drop_no_flow"),
        Story("no_flow_fullnat", "fullnat", "fullnat answers too; not those that a SNAT address sends.")
        .step(inside, "drop_no_flow", made=[reset(inside, "R", 3, 0)])
        .step(fixed(to_vip(segment("A"), src=SNAT)), "drop_martian"),
        Story(
            "no_flow_rr",
            "dsr",
            "A cursor cannot know where an unknown flow went. The backend may know it: no reset under DSR.",
        )
        .step(fixed(to_vip(segment("A", ack=1))), "drop_no_flow")
        .step(fixed(to_vip(syn())), "forward", dsr(fixed(to_vip(syn()))), note="the cursor has not moved"),
    ]
