"""Vectors of fragments: see make.py, which writes them. scapy cuts the datagrams."""

from __future__ import annotations

from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.vectors.make import (
    Story,
    dsr,
    fixed,
    from_backend,
    gue,
    in_front,
    nat,
    nat_reply,
    nat_v6,
    syn,
    to_vip,
    to_vip_v6,
)
from tests.vectors.sizes import numbered

BODY = bytes(range(250)) * 2


def cut(frame: Packet, size: int = 200) -> list[Packet]:
    """The frame's packet as fragments of `size` bytes of payload."""
    parts = fragment(frame[IP], fragsize=size)  # type: ignore[no-untyped-call]
    return [fixed(Ether(src=frame.src, dst=frame.dst) / each) for each in parts]


def cut_v6(frame: Packet, size: int = 200) -> list[Packet]:
    """The same for IPv6: what scapy puts together as UDP, with fragment headers that a person wrote."""
    body = bytes(frame[UDP])
    found = []
    for start in range(0, len(body), size):
        more = int(start + size < len(body))
        header = IPv6ExtHdrFragment(nh=17, offset=start // 8, m=more, id=0xBEEF)
        whole = Ether(src=frame.src, dst=frame.dst) / IPv6(bytes(frame[IPv6])[:40])
        whole[IPv6].remove_payload()
        del whole[IPv6].plen
        whole[IPv6].nh = 60
        found.append(fixed(whole / IPv6ExtHdrDestOpt(nh=44) / header / Raw(body[start : start + size])))
    return found


def stories() -> list[Story]:
    """All of them."""
    dns = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(BODY)))
    one, two, three = cut(dns)
    first, second, third = (dsr(each) for each in cut(dns))
    at_1, at_2, at_3 = cut(nat(dns, dport=5300))
    answer = fixed(from_backend(UDP(sport=5300, dport=5353) / Raw(BODY)))
    back = cut(answer)
    client_1, client_2, client_3 = numbered(cut(nat_reply(answer, sport=53)), 0x9E37)
    dns_v6 = fixed(to_vip_v6(UDP(sport=5353, dport=53) / Raw(BODY)))
    v6_1, v6_2, v6_3 = cut_v6(dns_v6)
    to_1, to_2, to_3 = cut_v6(nat_v6(dns_v6, dport=5300))
    other = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(BODY), id=8))
    x_1, x_2, x_3 = cut(other)
    over = fixed(to_vip(Raw(b"x" * 200), proto=17, id=8, frag=24, flags="MF"))
    odd = fixed(to_vip(Raw(b"x" * 33), proto=17, id=9, frag=4, flags="MF"))
    long = fixed(to_vip(Raw(b"x" * 200), proto=17, id=9, frag=8180))
    data = cut(fixed(to_vip(syn(dport=54) / Raw(BODY))))
    web, query = (cut(fixed(to_vip(l4 / Raw(BODY)))) for l4 in (syn(), UDP(sport=5353, dport=53)))
    far = {"source": "10.78.0.99", "ttl": 9}
    return [
        Story("fragments_gue", "tunnels", "The outer checksum over IPv6 is of one fragment: all is added up.")
        .step(data[0], "forward", gue(data[0], 6))
        .step(data[1], "forward", gue(data[1], 6))
        .step(data[2], "forward", gue(data[2], 6)),
        Story("tunnel_fragments", "tunnels", "Each travels in a packet of its own, which has its own number.")
        .step(web[0], "forward", in_front(web[0], 4, number_of=1))
        .step(web[1], "forward", in_front(web[1], 4, number_of=2), note="else a router's pieces are mixed")
        .step(web[2], "forward", in_front(web[2], 4, number_of=3))
        .step(query[0], "forward", gue(query[0], 4, 19523, number_of=4, **far))
        .step(query[1], "forward", gue(query[1], 4, 19523, number_of=5, **far)),
        Story("fragments", "dsr", "Those that come later follow the first, which has the ports.")
        .step(one, "forward", first)
        .step(one, "drop_fragment_twice", note="the same start and end (RFC 8200, section 4.5)")
        .step(two, "forward", second)
        .step(two, "drop_fragment_twice")
        .step(three, "forward", third),
        Story("fragments_reversed", "nat", "Those that come before the first wait for it.")
        .step(three, "waits", counted=[])
        .step(three, "drop_fragment_twice", note="the one that waits goes on")
        .step(two, "waits", counted=[])
        .step(one, "forward", at_1, out_arm=1, made=[at_3, at_2], counted=["forward"] * 3)
        .step(back[1], "waits", arm=1, counted=[])
        .step(back[0], "reply", client_1, arm=1, made=[client_2], counted=["reply"] * 2)
        .step(back[2], "reply", client_3, arm=1, note="with the identification that the first has got"),
        Story("fragments_v6", "nat-v6", "A fragment header behind another one (RFC 8200, section 4.5).")
        .step(v6_2, "waits", counted=[])
        .step(v6_1, "forward", to_1, out_arm=1, made=[to_2], counted=["forward"] * 2)
        .step(v6_3, "forward", to_3, out_arm=1),
        Story("fragments_refused", "dsr", "Overlap, odd lengths, and what is past 64 KiB (RFC 5722).")
        .step(x_2, "waits", counted=[])
        .step(over, "drop_fragment_overlap", counted=["drop_fragment_overlap"] * 2, note="both are dropped")
        .step(x_1, "drop_fragment_overlap")
        .step(x_3, "drop_fragment_overlap")
        .step(odd, "drop_fragment_overlap")
        .step(long, "drop_fragment_overlap"),
    ]
