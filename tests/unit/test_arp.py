"""ARP: the pure part. What is answered, what is noticed, and that no frame can break it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from l4raw.control.arp import announcement, answer, claim, probe_frame
from l4raw.control.errors import L4Error
from l4raw.control.vips import refuse_local
from l4raw.wire.arp import OFFSET, REPLY, REQUEST, Arp, build, parse

OURS = bytes.fromhex("0200000000fe")
CLIENT = bytes.fromhex("020000000001")
VIP = ipaddress.IPv4Address("10.77.0.100").packed
OTHER_VIP = ipaddress.IPv4Address("10.77.0.101").packed
CLIENT_ADDRESS = ipaddress.IPv4Address("10.77.0.1").packed
VIPS = {VIP, OTHER_VIP}

FIELDS = {
    "op": st.sampled_from([0, REQUEST, REPLY, 3, 0xFFFF]),
    "sha": st.sampled_from([OURS, CLIENT, bytes(6), b"\xff" * 6]) | st.binary(min_size=6, max_size=6),
    "spa": st.sampled_from([VIP, OTHER_VIP, bytes(4), CLIENT_ADDRESS]),
    "tha": st.binary(min_size=6, max_size=6),
    "tpa": st.sampled_from([VIP, OTHER_VIP, bytes(4), CLIENT_ADDRESS]),
}
ARPS = st.builds(Arp, **FIELDS)
FRAMES = st.one_of(
    st.binary(max_size=80),
    ARPS.map(lambda arp: build(arp, src=arp.sha, dst=b"\xff" * 6)),
    st.tuples(ARPS, st.integers(0, 50)).map(lambda pair: build(pair[0], src=CLIENT, dst=OURS)[: pair[1]]),
)


def who_has(address: str, sender: str = "10.77.0.1", mac: str = "02:00:00:00:00:01") -> bytes:
    return bytes(Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=mac, psrc=sender, pdst=address))


def test_a_request_for_the_vip_is_answered_as_scapy_would_read_it() -> None:
    reply = answer(who_has("10.77.0.100"), VIPS, OURS)
    assert reply is not None
    read = Ether(reply)
    assert (read.dst, read.src, read.type) == ("02:00:00:00:00:01", "02:00:00:00:00:fe", 0x0806)
    arp = read[ARP]
    assert (arp.hwtype, arp.ptype, arp.hwlen, arp.plen, arp.op) == (1, 0x0800, 6, 4, 2)
    assert (arp.hwsrc, arp.psrc) == ("02:00:00:00:00:fe", "10.77.0.100")
    assert (arp.hwdst, arp.pdst) == ("02:00:00:00:00:01", "10.77.0.1")


def test_a_probe_is_answered_which_defends_the_vip() -> None:
    reply = answer(who_has("10.77.0.100", sender="0.0.0.0"), VIPS, OURS)
    assert reply is not None
    assert Ether(reply)[ARP].pdst == "0.0.0.0"


@pytest.mark.parametrize(
    ("why", "frame"),
    [
        ("another address", who_has("10.77.0.9")),
        ("our own request", who_has("10.77.0.100", mac="02:00:00:00:00:fe")),
        ("an announcement", who_has("10.77.0.100", sender="10.77.0.100")),
        ("a group address as sender", who_has("10.77.0.100", mac="ff:ff:ff:ff:ff:ff")),
        ("no sender", who_has("10.77.0.100", mac="00:00:00:00:00:00")),
        ("a reply", bytes(Ether(src="02:00:00:00:00:01") / ARP(op=2, pdst="10.77.0.100"))),
        ("not ARP", who_has("10.77.0.100").replace(b"\x08\x06", b"\x08\x00", 1)),
        ("another hardware type", who_has("10.77.0.100").replace(b"\0\x01\x08\0", b"\0\x06\x08\0", 1)),
        ("cut short by a byte", who_has("10.77.0.100")[: OFFSET + 27]),
        ("empty", b""),
    ],
)
def test_what_is_not_answered(why: str, frame: bytes) -> None:
    assert answer(frame, VIPS, OURS) is None, why


@given(FRAMES)
def test_any_bytes_are_answered_or_not_but_never_raise(frame: bytes) -> None:
    reply = answer(frame, VIPS, OURS)
    claim(frame, VIPS, OURS)
    if reply is None:
        return
    asked = Ether(frame)[ARP]
    said = Ether(reply)[ARP]
    assert (asked.op, said.op) == (1, 2)
    assert (said.psrc, said.pdst, said.hwdst) == (asked.pdst, asked.psrc, asked.hwsrc)
    assert said.hwsrc == "02:00:00:00:00:fe"
    assert ipaddress.IPv4Address(said.psrc).packed in VIPS


@given(ARPS)
def test_what_is_built_is_what_is_parsed_and_what_scapy_reads(arp: Arp) -> None:
    frame = build(arp, src=CLIENT, dst=OURS)
    assert parse(frame) == arp
    read = Ether(frame)[ARP]
    assert (read.op, read.psrc, read.pdst) == (
        arp.op,
        str(ipaddress.IPv4Address(arp.spa)),
        str(ipaddress.IPv4Address(arp.tpa)),
    )
    assert read.hwsrc == arp.sha.hex(":")


def test_probe_and_announcement_are_those_of_rfc_5227() -> None:
    probe, told = Ether(probe_frame(VIP, OURS)), Ether(announcement(VIP, OURS))
    for frame in (probe, told):
        assert (frame.dst, frame.src, frame[ARP].op) == ("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:fe", 1)
        assert (frame[ARP].hwsrc, frame[ARP].hwdst) == ("02:00:00:00:00:fe", "00:00:00:00:00:00")
        assert frame[ARP].pdst == "10.77.0.100"
    assert probe[ARP].psrc == "0.0.0.0"
    assert told[ARP].psrc == "10.77.0.100"


def test_another_host_with_the_vip_is_noticed_and_our_own_frames_are_not() -> None:
    assert claim(announcement(VIP, CLIENT), VIPS, OURS) == (VIP, CLIENT)
    reply = build(Arp(REPLY, CLIENT, OTHER_VIP, OURS, CLIENT_ADDRESS), src=CLIENT, dst=OURS)
    assert claim(reply, VIPS, OURS) == (OTHER_VIP, CLIENT)
    assert claim(announcement(VIP, OURS), VIPS, OURS) is None
    assert claim(who_has("10.77.0.100"), VIPS, OURS) is None


def test_a_vip_that_is_an_address_of_this_host_is_refused() -> None:
    refuse_local(VIPS, {CLIENT_ADDRESS: "eth1"})
    with pytest.raises(L4Error, match=r"10\.77\.0\.100 is an address of this host") as caught:
        refuse_local([VIP], {VIP: "eth1"})
    assert (caught.value.code, caught.value.where) == ("L4R-202", "eth1")
