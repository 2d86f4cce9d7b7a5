"""One 802.1Q tag: read, put back by the raw engine, and shown."""

from __future__ import annotations

from struct import pack_into, unpack_from

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from l4raw.cli import fields
from l4raw.engine.raw import put_back
from l4raw.wire import ethernet
from l4raw.wire.abi import DROP_SHORT, PASS_NOT_IP
from l4raw.wire.headers import Headers, parse
from tests.crafted import tagged, untagged

PACKETS = (
    IP(src="1.2.3.4", dst="5.6.7.8", options=b"\x94\x04\0\0") / TCP(sport=258, dport=772),
    IP(src="1.2.3.4", dst="5.6.7.8", flags="MF") / UDP(sport=258, dport=772),
    IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=258, dport=772),
)
MACS = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


@pytest.mark.parametrize("packet", PACKETS, ids=lambda packet: packet.summary())
def test_what_is_behind_a_tag_is_what_is_behind_none(packet: Packet) -> None:
    plain, behind = parse(bytes(MACS / packet)), parse(bytes(MACS / Dot1Q(vlan=5, prio=3) / packet))
    assert isinstance(plain, Headers) and isinstance(behind, Headers)
    assert (plain.ip, behind.ip) == (14, 18)
    moved = {name: getattr(plain, name) for name in ("l4", "icmp", "body")}
    assert behind == plain._replace(ip=18, **{name: at and at + 4 for name, at in moved.items()})


def test_what_has_two_tags_or_ends_within_one() -> None:
    plain = bytes(MACS / PACKETS[0])
    one = tagged(plain, 5)
    assert one == bytes(MACS / Dot1Q(vlan=5) / PACKETS[0]) and untagged(one) == plain
    assert parse(tagged(one, 6)) == PASS_NOT_IP
    assert parse(tagged(plain, 5, 0x88A8)) == PASS_NOT_IP
    assert parse(tagged(tagged(plain, 5, 0x88A8), 5)) == PASS_NOT_IP
    for size in range(len(one)):
        assert not isinstance(parse(one[:size]), Headers)
        if size < 18 + 20:
            assert parse(one[:size]) == DROP_SHORT
    assert ethernet.length(one) == 18 and ethernet.length(plain) == 14 == ethernet.length(one[:13])


@pytest.mark.parametrize("needs_sum", [0, 1])
@pytest.mark.parametrize("gso", [0, 1])
def test_the_raw_engine_puts_back_what_the_kernel_has_taken_out(needs_sum: int, gso: int) -> None:
    plain = bytes(MACS / PACKETS[0])
    buffer = bytearray(b"\xa5" * 4 + bytes(10) + plain)
    buffer[4], buffer[5] = needs_sum, gso
    pack_into("=HHHH", buffer, 6, 58, 1400, 38, 16)
    put_back(buffer, 0x6005)
    assert bytes(buffer[10:]) == tagged(plain, 0x6005)
    assert (buffer[0], buffer[1]) == (needs_sum, gso)
    # hdr_len and csum_start count from the frame's start, the others do not.
    headers, start = 62 if gso else 58, 42 if needs_sum else 38
    assert unpack_from("=HHHH", buffer, 2) == (headers, 1400, start, 16)


def test_it_is_shown() -> None:
    frame = tagged(bytes(MACS / PACKETS[0]), 0x7005)
    lines = [" ".join(line.split()) for line in fields.table(frame)]
    assert "12 eth.type 0x8100 (VLAN)" in lines
    assert "14 tag.tci VLAN 5, priority 3, may be dropped" in lines
    assert "16 tag.type 0x0800 (IPv4)" in lines
    assert "26 ip.ttl 64" in lines and "42 tcp.sport 258" in lines
    detail = fields.detail(frame[:16], DROP_SHORT)
    assert detail == "the frame has 16 bytes; an Ethernet header with a tag has 18"
