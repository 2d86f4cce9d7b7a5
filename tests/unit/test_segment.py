"""Segments of a check: built as scapy builds them, read back, and the filter that lets answers in."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from l4raw.control import vip_probe
from l4raw.control.checks import DEFAULT, Target
from l4raw.control.netlink import Interface
from l4raw.control.vip_probe import VipProbe, answers_to
from l4raw.wire import tcp
from l4raw.wire.segment import Segment, build, read
from tests.tables import CLIENT_MAC, OUR_MACS, ip

ENDS = {4: ("10.77.0.2", "10.77.0.100"), 6: ("2001:db8:77::2", "2001:db8:77::100")}
MSS = b"\x02\x04\x05\xb4"
_numbers = st.integers(0, 0xFFFF_FFFF)


def segment(version: int, flags: int, options: bytes = b"") -> Segment:
    src, dst = map(ip, ENDS[version])
    return Segment(src, dst, 50000, 80, 7, 8, flags, options)


@pytest.mark.parametrize("version", [4, 6])
@given(
    seq=_numbers, ack=_numbers, flags=st.sampled_from([tcp.SYN, tcp.RST]), options=st.sampled_from([b"", MSS])
)
def test_a_built_one_is_scapys_and_is_read_back(
    version: int, seq: int, ack: int, flags: int, options: bytes
) -> None:
    wanted = segment(version, flags, options)._replace(seq=seq, ack=ack)
    frame = build(wanted, src=OUR_MACS[0], dst=CLIENT_MAC)
    src, dst = ENDS[version]
    network: Packet
    if version == 4:
        network = IP(src=src, dst=dst, id=0, flags="DF", ttl=64)
    else:
        network = IPv6(src=src, dst=dst, hlim=64)
    said = [("MSS", 1460)] if options else []
    layer = TCP(sport=50000, dport=80, seq=seq, ack=ack, flags=flags, window=0xFFFF, options=said)
    ether = Ether(src=OUR_MACS[0].hex(":"), dst=CLIENT_MAC.hex(":"))
    assert frame == bytes(ether / network / layer)
    assert read(frame) == wanted._replace(options=b"")


@given(st.binary(max_size=200))
def test_other_bytes_are_none(data: bytes) -> None:
    assert read(data) is None or len(data) >= 54


def accepts(address: bytes, frame: bytes, kind: int = 0) -> bool:
    """What the kernel would make of the filter (socket(7)); `kind`: 0 is a frame for this host."""
    program, at, value = answers_to(address), 0, 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        match code:
            case 0x30:
                value = kind if operand > 0xFFFF else frame[operand]
            case 0x20:
                value = int.from_bytes(frame[operand : operand + 4], "big")
            case 0x15:
                at += yes if value == operand else no
            case 0x45:
                at += yes if value & operand else no
            case 0x06:
                return operand > 0


@pytest.mark.parametrize("version", [4, 6])
def test_the_filter_lets_in_answers_and_nothing_else(version: int) -> None:
    frames = {
        flags: build(segment(version, flags), src=OUR_MACS[0], dst=CLIENT_MAC)
        for flags in (tcp.SYN | tcp.ACK, tcp.RST | tcp.ACK, tcp.ACK, tcp.FIN | tcp.ACK)
    }
    mine = ip(ENDS[version][1])
    assert [accepts(mine, frame) for frame in frames.values()] == [True, True, False, False]
    good = frames[tcp.SYN | tcp.ACK]
    assert not accepts(mine, good, kind=3), "a frame for another host"
    assert not accepts(ip(ENDS[version][0]), good), "another address"
    spoiled = bytearray(good)
    spoiled[23 if version == 4 else 20] = 17
    assert not accepts(mine, bytes(spoiled)), "UDP"


def test_a_host_without_an_address_says_nothing_of_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vip_probe, "_source", lambda target: bytes(len(target.asked)))
    arm = cast(Interface, None)  # no frame is sent
    target = Target(1, "web", "b1", bytes([10, 77, 0, 11]), bytes([10, 77, 0, 100]), 80, DEFAULT)
    result = asyncio.run(VipProbe(arm, lambda _: bytes(6))(target))
    assert result.ok is None
    assert "no address" in result.reason
