"""Neighbour discovery: the pure part. What is answered, what is noticed, and that no frame can break it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from l4raw.control.nd import announcement, answer, claim, probe_frame, rival
from l4raw.wire.nd import OFFSET, parse
from tests.tables import ip

OURS, CLIENT_MAC = bytes.fromhex("0200000000fe"), "02:00:00:00:00:01"
OUR_MAC = OURS.hex(":")
VIP_TEXT, CLIENT, OTHER = "2001:db8:77::100", "2001:db8:77::1", "2001:db8:77::9"
VIPS = frozenset({ip(VIP_TEXT)})
GROUP, GROUP_MAC = "ff02::1:ff00:100", "33:33:ff:00:01:00"


def solicitation(target: str = VIP_TEXT, src: str = CLIENT, **ip_fields: Any) -> Packet:
    body = ICMPv6ND_NS(tgt=target)
    if src != "::":
        body /= ICMPv6NDOptSrcLLAddr(lladdr=CLIENT_MAC)
    fields: dict[str, Any] = {"src": src, "dst": GROUP, "hlim": 255} | ip_fields
    return Ether(bytes(Ether(src=CLIENT_MAC, dst=GROUP_MAC) / IPv6(**fields) / body))


def advertisement(target: str = VIP_TEXT, mac: str = CLIENT_MAC) -> bytes:
    body = ICMPv6ND_NA(tgt=target, R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return bytes(Ether(src=mac, dst="33:33:00:00:00:01") / IPv6(src=target, dst="ff02::1", hlim=255) / body)


def test_a_solicitation_for_the_vip_is_answered_as_scapy_would_read_it() -> None:
    reply = answer(bytes(solicitation()), VIPS, OURS)
    assert reply is not None
    read = Ether(reply)
    assert (read.dst, read.src, read.type) == (CLIENT_MAC, OUR_MAC, 0x86DD)
    assert (read[IPv6].src, read[IPv6].dst, read[IPv6].hlim) == (VIP_TEXT, CLIENT, 255)
    said = read[ICMPv6ND_NA]
    assert (said.tgt, said.R, said.S, said.O) == (VIP_TEXT, 0, 1, 1)
    assert read[ICMPv6NDOptDstLLAddr].lladdr == OUR_MAC
    sent = said.cksum
    del read[ICMPv6ND_NA].cksum
    assert Ether(bytes(read))[ICMPv6ND_NA].cksum == sent


def test_one_that_comes_to_our_own_address_is_answered_too() -> None:
    asked = solicitation(dst=VIP_TEXT)
    asked.dst = OUR_MAC
    assert answer(bytes(asked), VIPS, OURS) is not None


def test_a_probe_is_answered_to_everybody() -> None:
    reply = answer(bytes(solicitation(src="::")), VIPS, OURS)
    assert reply == announcement(ip(VIP_TEXT), OURS)
    read = Ether(reply)
    assert (read.dst, read[IPv6].dst) == ("33:33:00:00:00:01", "ff02::1")
    assert (read[ICMPv6ND_NA].S, read[ICMPv6ND_NA].O) == (0, 1)


def corrupted(frame: Packet, at: int) -> bytes:
    data = bytearray(bytes(frame))
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize(
    "frame",
    [
        bytes(solicitation(OTHER)),
        bytes(solicitation(hlim=254)),  # a router was in between
        corrupted(solicitation(), OFFSET + 2),  # checksum
        bytes(solicitation())[:-1],
        bytes(solicitation()) + b"padding",
        advertisement(),
    ],
    ids=["another address", "hop limit", "checksum", "cut", "padded", "an advertisement"],
)
def test_what_is_not_answered(frame: bytes) -> None:
    is_padded = frame.endswith(b"padding")
    assert (answer(frame, VIPS, OURS) is not None) == is_padded


def test_who_claims_the_vip_is_noticed() -> None:
    assert claim(advertisement(), VIPS, OURS) == (ip(VIP_TEXT), bytes.fromhex("020000000001"))
    assert claim(advertisement(mac=OUR_MAC), VIPS, OURS) is None
    assert claim(advertisement(OTHER), VIPS, OURS) is None
    assert rival(bytes(solicitation(src="::")), VIPS, OURS) == (ip(VIP_TEXT), bytes.fromhex("020000000001"))
    assert rival(bytes(solicitation()), VIPS, OURS) is None


def test_a_probe_is_one_of_rfc_4862() -> None:
    read = Ether(probe_frame(ip(VIP_TEXT), OURS))
    assert (read.dst, read[IPv6].src, read[IPv6].dst) == (GROUP_MAC, "::", GROUP)
    assert read[ICMPv6ND_NS].tgt == VIP_TEXT
    assert ICMPv6NDOptSrcLLAddr not in read


FRAMES = st.sampled_from([bytes(solicitation()), bytes(solicitation(src="::")), advertisement()])


@given(FRAMES, st.lists(st.tuples(st.integers(0, 85), st.integers(0, 255)), max_size=4), st.integers(0, 90))
def test_no_frame_breaks_it(frame: bytes, changes: list[tuple[int, int]], size: int) -> None:
    data = bytearray(frame)
    for at, value in changes:
        data[at % len(data)] = value
    for each in (bytes(data), bytes(data[:size])):
        parse(each)
        answer(each, VIPS, OURS)
        claim(each, VIPS, OURS)
        rival(each, VIPS, OURS)
