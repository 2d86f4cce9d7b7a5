"""Frames of a check through a tunnel: as both executors send a client's, and as scapy reads them."""

from __future__ import annotations

from itertools import product
from typing import Final

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from l4raw.control.check_frame import frame_of
from l4raw.control.checks import Target, targets
from l4raw.core.model import Backend, Mode, Service, Tunnel
from l4raw.core.tables import Tables
from l4raw.wire import tcp
from l4raw.wire.abi import FORWARD
from l4raw.wire.segment import Segment, build
from tests.executors import Executor
from tests.kernel import EXECUTORS
from tests.tables import (
    CLIENT_MAC,
    OUR_MACS,
    SOURCES,
    VIP,
    VIP_V6,
    backends,
    backends_v6,
    ip,
    make_tables,
    service,
)

MSS: Final = b"\x02\x04\x05\xb4"
MADE: Final = {4: IP, 6: IPv6}
INSIDE: Final = {4: 4, 6: 41}
"""Protocol numbers of a packet inside of another one."""
each_way = pytest.mark.parametrize(
    ("mode", "inner", "outer"), list(product((Mode.DSR_IPIP, Mode.DSR_GUE), (4, 6), (4, 6)))
)


def tunnelled(mode: Mode, inner: int, outer: int) -> Service:
    members = (backends if outer == 4 else backends_v6)(1)
    port = 7080 if mode is Mode.DSR_GUE else 6080
    return service(mode, vip=VIP if inner == 4 else VIP_V6, members=members, tunnel=Tunnel(None, port, 9))


def only(tables: Tables) -> tuple[Target, Backend]:
    """What is checked, by default."""
    (target,) = targets(tables.policy, {})
    assert target.tunnel is not None
    return target, target.tunnel[1].backend


def segments(target: Target) -> tuple[Segment, Segment]:
    """The SYN, and the RST that ends it."""
    ours = ip("10.77.0.7" if len(target.asked) == 4 else "2001:db8:77::7")
    syn = Segment(ours, target.asked, 50000, target.port, 7, 0, tcp.SYN, MSS)
    return syn, syn._replace(seq=8, flags=tcp.RST, options=b"")


@each_way
@pytest.mark.parametrize("executor", EXECUTORS)
def test_they_are_what_becomes_of_the_same_frames_of_a_client(
    executor: type[Executor], mode: Mode, inner: int, outer: int
) -> None:
    steers = executor(make_tables([tunnelled(mode, inner, outer)], new=executor.new))
    target, backend = only(steers.tables)
    to_backend = CLIENT_MAC[:5] + backend.address[-1:]
    for segment in segments(target):
        of_client = steers.run(build(segment, src=CLIENT_MAC, dst=OUR_MACS[0]), 0, 0)
        assert of_client.verdict == FORWARD
        assert frame_of(segment, target, src=OUR_MACS[0], dst=to_backend) == of_client.frame


@each_way
def test_scapy_reads_a_syn_to_the_vip_in_a_packet_to_the_backend(mode: Mode, inner: int, outer: int) -> None:
    target, backend = only(make_tables([tunnelled(mode, inner, outer)]))
    syn, _ = segments(target)
    frame = Ether(frame_of(syn, target, src=OUR_MACS[0], dst=CLIENT_MAC))
    assert (frame.src, frame.dst) == (OUR_MACS[0].hex(":"), CLIENT_MAC.hex(":"))
    around = frame[MADE[outer]]
    assert (ip(around.src), ip(around.dst)) == (SOURCES[backend.address], backend.address)
    assert (around.ttl if outer == 4 else around.hlim) == 9
    protocol, data = around.proto if outer == 4 else around.nh, bytes(around.payload)
    if mode is Mode.DSR_GUE:
        assert protocol == 17 and around[UDP].dport == 7080
        protocol, data = data[9], data[12:]
        assert (around[UDP].chksum == 0) == (outer == 4)
    assert protocol == INSIDE[inner]
    packet = MADE[inner](data)
    assert (ip(packet.src), ip(packet.dst)) == (syn.src, syn.dst)
    assert (packet.ttl if inner == 4 else packet.hlim) == 63
    assert packet[TCP].flags == "S" and packet[TCP].options == [("MSS", 1460)]
    for each, zeroed in ((frame, MADE[outer]), (packet, MADE[inner]), (packet, TCP)):
        assert computed(each, zeroed) == bytes(each)
    if mode is Mode.DSR_GUE and outer == 6:
        assert computed(frame, UDP) == bytes(frame)


def computed(packet: Packet, layer: type[Packet]) -> bytes:
    """The packet with that layer's checksum, if it has any, as scapy computes it."""
    again = packet.copy()
    if "chksum" in again[layer].fields:
        del again[layer].chksum
    return bytes(again)


def test_without_a_tunnel_it_is_the_segment_alone() -> None:
    (target,) = targets(make_tables([service(members=backends(1))]).policy, {})
    syn, _ = segments(target)
    macs = {"src": OUR_MACS[0], "dst": CLIENT_MAC}
    assert frame_of(syn, target, **macs) == build(syn, **macs)
