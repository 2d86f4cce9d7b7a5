"""Vectors of frames with an 802.1Q tag: see make.py, which writes them. scapy makes the tags.

Most are other vectors, told again with a tag on every frame: a tag changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.vectors.make import Story, dsr, fixed, from_backend, nat, nat_reply, syn, to_vip
from tests.vectors.pieces import BODY, cut

AGAIN = (
    "dsr_two_arms",
    "v6_dsr",
    "nat_there_and_back",
    "nat_partial",
    "v6_nat",
    "fullnat_there_and_back",
    "tunnel_ipip",
    "tunnel_gue",
    "tunnel_ipip_v6",
    "tunnel_gue_v6",
    "echo",
    "echo_v6",
    "too_big",
    "too_big_nat",
    "too_big_v6",
    "fragmented",
    "fragmented_nat",
    "fragments_gue",
    "fragments_reversed",
    "fragments_v6",
    "error_nat",
    "error_v6",
    "no_flow",
    "no_flow_v6",
    "mss_odd",
)
"""Every mode, and every kind of frame that the balancer makes itself."""


def tag(frame: Packet | bytes, vlan: int = 5, prio: int = 3, kind: type[Packet] = Dot1Q) -> bytes:
    """The frame with a tag behind its MAC addresses; what follows stays byte for byte."""
    data = bytes(frame)
    ethertype = int.from_bytes(data[12:14])
    head = Ether(data[:14])
    return bytes(Ether(src=head.src, dst=head.dst) / kind(vlan=vlan, prio=prio, type=ethertype)) + data[14:]


def _again(story: Story) -> Story:
    """The same story with a tag."""
    why = story.why + "\nAll of it with an 802.1Q tag, which stays."
    found = Story(f"tagged_{story.name}", story.tables, why)
    for given in story.given:
        start, out = given["csum_start"], given["out"]
        with_tag = {
            "frame": tag(given["frame"]),
            "out": None if out is None else tag(out),
            "made": [tag(each) for each in given["made"]],
            "csum_start": start and start + 4,
        }
        found.step(**given | with_tag)
    return found


def stories(others: Sequence[Story]) -> list[Story]:
    """All of them; those to tell again are in `others`."""
    by_name = {story.name: story for story in others}
    first, ack = fixed(to_vip(syn())), fixed(to_vip(TCP(sport=41022, dport=80, flags="A", seq=1001, ack=1)))
    reply = fixed(from_backend(TCP(sport=8080, dport=41022, flags="SA", seq=5, ack=1001)))
    dns = fixed(to_vip(UDP(sport=5353, dport=53) / Raw(BODY)))
    one, two, three = cut(dns)
    at_1, at_2, at_3 = cut(nat(dns, dport=5300))
    spoiled = bytearray(tag(first))
    spoiled[18 + 10] ^= 1
    twice = tag(tag(first), 7)
    return [
        *(_again(by_name[name]) for name in AGAIN),
        Story("tags", "nat", "Each frame keeps its own tag; a flow has none.")
        .step(tag(first), "forward", tag(nat(first)), out_arm=1)
        .step(tag(ack, 0, 7), "forward", tag(nat(ack), 0, 7), out_arm=1, note="a priority tag: VLAN 0")
        .step(ack, "forward", nat(ack), out_arm=1, note="none")
        .step(tag(reply, 9), "reply", tag(nat_reply(reply), 9), arm=1, note="the backend's VLAN is another")
        .step(tag(three, 3), "waits", counted=[])
        .step(two, "waits", counted=[])
        .step(
            tag(one, 1),
            "forward",
            tag(at_1, 1),
            out_arm=1,
            made=[tag(at_3, 3), at_2],
            counted=["forward"] * 3,
            note="of what waited, too",
        ),
        Story("tags_refused", "dsr", "Two tags, or one of another kind, are not ours.")
        .step(twice, "pass_not_ip", note="802.1Q twice")
        .step(tag(tag(first), 7, kind=Dot1AD), "pass_not_ip", note="802.1ad: a provider's tag in front")
        .step(tag(tag(first, kind=Dot1AD), 7), "pass_not_ip", note="and behind")
        .step(tag(first, kind=Dot1AD), "pass_not_ip", note="and alone")
        .step(tag(first)[:17], "drop_short", note="cut off within the tag")
        .step(tag(first)[:14], "drop_short")
        .step(tag(first)[:18], "drop_short", note="cut off behind it")
        .step(tag(first)[:37], "drop_short")
        .step(bytes(spoiled), "drop_ip_checksum")
        .step(tag(first), "forward", tag(dsr(first))),
    ]
