"""Frames with an 802.1Q tag, sent by hand as a kernel need not have VLAN interfaces; seen at both ends."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from l4raw.netns import Host, Log, Topology, dsr, nat
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.integration.running import running

pytestmark = pytest.mark.root

DEADLINE = 10.0
SOL_PACKET, PACKET_AUXDATA, VALID = 263, 8, 1 << 4  # linux/if_packet.h
THERE, BACK = 0x6005, 0x0009
"""Tags: priority 3 of VLAN 5; VLAN 9."""
LONGEST = 1500
PORT = 9

each_dataplane = pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])


class Wire:
    """A packet socket of a host: frames with their tags, which the kernel keeps beside them."""

    def __init__(self, host: Host) -> None:
        self.mac = host.links[0].mac
        with host.enter():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            self._socket.bind(("eth0", 3))
        self._socket.settimeout(0.05)

    def send(self, frame: Packet | bytes) -> None:
        self._socket.send(bytes(frame))

    def wait_for(self, wanted: Callable[[Ether], bool]) -> tuple[int | None, Ether]:
        """The first frame that came in, was not there before and is wanted; and its tag."""
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            with suppress(TimeoutError):
                data, beside, _, sender = self._socket.recvmsg(1 << 16, 256)
                status, tci = struct.unpack("=I12xH2x", beside[0][2])
                frame = Ether(data)
                if sender[2] != socket.PACKET_OUTGOING and wanted(frame):
                    return (tci if status & VALID else None), frame
        raise AssertionError(f"not within {DEADLINE:g} s")

    def close(self) -> None:
        self._socket.close()


@contextmanager
def wires(network: Topology) -> Iterator[tuple[Wire, Wire]]:
    """Of the client and of the only backend.

    The switch's kernel takes tags out of frames; XDP needs them written again.
    """
    switch = next(host for host in network.hosts if host.name == "switch")
    for interface in network.interfaces:
        off = ["txvlan", "off", "tx-vlan-stag-hw-insert", "off"]
        switch.run(["ethtool", "-K", f"balancer-{interface}", *off])
    ends = Wire(network.client), Wire(network.backends[0])
    try:
        yield ends
    finally:
        for each in ends:
            each.close()


def tagged(network: Topology, packet: Packet, tci: int, kind: type[Packet] = Dot1Q) -> Ether:
    """The client's frame to the balancer."""
    macs = Ether(src=network.client.links[0].mac, dst=network.balancer.links[0].mac)
    return macs / kind(vlan=tci & 0xFFF, prio=tci >> 13) / packet


def to_vip(network: Topology, inner: Packet, **ip: Any) -> Packet:
    return IP(src=network.client.address, dst=network.vip, **ip) / inner


def is_udp(body: bytes) -> Callable[[Ether], bool]:
    return lambda frame: UDP in frame and bytes(frame[UDP].payload).startswith(body)


@each_dataplane
@pytest.mark.parametrize("mode", ["dsr", "nat"])
def test_a_tag_goes_to_the_backend_and_back(mode: str, dataplane: str) -> None:
    with (nat if mode == "nat" else dsr)(backends=1, log=Log(silent=True)) as network:
        toml = network.config_toml(f"{PORT}/udp", "80/tcp", dataplane=dataplane)
        with running(network, toml) as balancer, wires(network) as (client, backend):
            datagram = UDP(sport=4000, dport=PORT) / Raw(b"there")
            client.send(tagged(network, to_vip(network, datagram), THERE))
            tag, frame = backend.wait_for(is_udp(b"there"))
            assert (tag, frame.dst, frame.src) == (THERE, backend.mac, network.balancer.links[-1].mac)
            if mode == "nat":
                answer = IP(src=frame[IP].dst, dst=frame[IP].src) / UDP(sport=PORT, dport=4000) / Raw(b"back")
                backend.send(Ether(src=backend.mac, dst=frame.src) / Dot1Q(vlan=BACK) / answer)
                tag, frame = client.wait_for(is_udp(b"back"))
                assert (tag, frame.dst, frame[IP].src) == (BACK, client.mac, network.vip)
            client.send(tagged(network, to_vip(network, ICMP() / Raw(b"ping")), THERE))
            tag, frame = client.wait_for(lambda frame: ICMP in frame and frame[ICMP].type == 0)
            assert (tag, frame[IP].src) == (THERE, network.vip)
            client.send(tagged(network, to_vip(network, UDP(dport=PORT) / Raw(b"x" * (LONGEST - 28))), THERE))
            tag, frame = backend.wait_for(is_udp(b"xxx"))
            assert (tag, frame[IP].len) == (THERE, LONGEST), "the MTU is without the tag"
        assert balancer.verdict("forward") == 2 and balancer.verdict("echo") == 1
        assert balancer.verdict("reply") == (mode == "nat")


@each_dataplane
def test_what_the_balancer_makes_has_the_tag_of_what_it_answers(dataplane: str) -> None:
    with nat(backends=1, log=Log(silent=True)) as network:
        toml = network.config_toml(f"{PORT}/udp", "80/tcp", dataplane=dataplane)
        network.balancer.ip(f"link set {network.interfaces[-1]} mtu 1000")
        with running(network, toml) as balancer, wires(network) as (client, backend):
            lost = TCP(sport=4001, dport=80, flags="A", seq=5, ack=77)
            client.send(tagged(network, to_vip(network, lost), THERE))
            tag, frame = client.wait_for(lambda frame: TCP in frame and frame[TCP].flags == "R")
            assert (tag, frame[TCP].seq) == (THERE, 77)
            large = UDP(sport=4002, dport=PORT) / Raw(b"y" * 1400)
            client.send(tagged(network, to_vip(network, large, flags="DF"), BACK))
            tag, frame = client.wait_for(lambda frame: ICMP in frame and frame[ICMP].type == 3)
            assert (tag, frame[IP].src, frame[ICMP].nexthopmtu) == (BACK, network.vip, 1000)
            client.send(tagged(network, to_vip(network, large, id=7), THERE))
            pieces = [backend.wait_for(lambda frame: IP in frame and frame[IP].proto == 17) for _ in range(2)]
            assert [tag for tag, _ in pieces] == [THERE] * 2
            assert sum(frame[IP].len - 20 for _, frame in pieces) == 1408
        assert balancer.verdict("fragmented") == balancer.verdict("drop_too_big") == 1


@each_dataplane
def test_fragments_keep_their_tags_and_what_has_two_is_not_ours(dataplane: str) -> None:
    with nat(backends=1, log=Log(silent=True)) as network:
        toml = network.config_toml(f"{PORT}/udp", dataplane=dataplane)
        with running(network, toml) as balancer, wires(network) as (client, backend):
            whole = to_vip(network, UDP(sport=4003, dport=PORT) / Raw(b"z" * 2000), id=9)
            first, second = fragment(IP(bytes(whole)), fragsize=1400)  # type: ignore[no-untyped-call]
            client.send(tagged(network, second, BACK))
            client.send(tagged(network, first, THERE))
            pieces = [backend.wait_for(lambda frame: IP in frame and frame[IP].proto == 17) for _ in range(2)]
            assert sorted((frame[IP].frag, tag) for tag, frame in pieces) == [(0, THERE), (175, BACK)]
            datagram = to_vip(network, UDP(sport=4004, dport=PORT) / Raw(b"two"))
            client.send(tagged(network, Dot1Q(vlan=3) / datagram, THERE))
            client.send(tagged(network, datagram, THERE, Dot1AD))
            client.send(tagged(network, to_vip(network, UDP(sport=4005, dport=PORT) / Raw(b"one")), THERE))
            backend.wait_for(is_udp(b"one"))
        assert balancer.verdict("forward") == 3, "and none that had two tags"
