"""The invariant: any bytes give exactly one verdict, no exception, and change nothing unless forwarded."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from l4raw.core.model import Mode
from l4raw.core.tables import Tables
from l4raw.engine.base import Received, forward
from l4raw.engine.replay import ReplayEngine
from l4raw.wire import ethernet, ipv4
from l4raw.wire.abi import FORWARD, REPLY, VERDICT_NAMES
from l4raw.wire.checksum import checksum, pseudo_header
from l4raw.wire.headers import Frame
from tests.tables import CLIENT_MAC, OUR_MACS, backends, ip, make_tables, service
from tests.unit.test_steer import reply, request

IP_AT = ethernet.LENGTH
L4_AT = IP_AT + ipv4.LENGTH
B1_MAC = bytes([2, 0, 0, 0, 0, 11])
IN_FRONT = {Mode.DSR_IPIP: 20, Mode.DSR_GUE: 20 + 8 + 4}
"""Bytes of the headers that a tunnel over IPv4 puts there: IP, and UDP and GUE."""

DATAGRAM = bytes(
    Ether(src=CLIENT_MAC, dst=OUR_MACS[0]) / IP(src="10.77.0.1", dst="10.77.0.100") / UDP(sport=7, dport=80)
)
seeds = st.sampled_from(
    [
        (request(), 0),
        (request(flags="A"), 0),
        (request() + b"\0" * 20, 0),
        (DATAGRAM, 0),
        (reply(), 1),
        (reply(flags="FA"), 1),
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, int]:
    """A good frame with some bytes changed, cut short or padded; often with its header checksum put right."""
    good, arm = draw(seeds)
    frame = bytearray(good)
    for _ in range(draw(st.integers(0, 4))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    frame = frame[: draw(st.integers(0, len(frame)))] if draw(st.integers(0, 3)) == 0 else frame
    if draw(st.integers(0, 3)) and len(frame) >= L4_AT:
        at = IP_AT + ipv4.CHECKSUM
        frame[at : at + 2] = b"\0\0"
        length = max(ipv4.LENGTH, (frame[IP_AT] & 15) * 4)
        frame[at : at + 2] = checksum(frame[IP_AT:][:length]).to_bytes(2, "big")
    return bytes(frame), arm


class Watched(ReplayEngine):
    """Keeps the buffer of the last frame."""

    last: Frame = memoryview(b"")

    def poll(self, timeout: float) -> Iterator[Received]:
        for received in super().poll(timeout):
            self.last = received.frame
            yield received


def state_of(tables: Tables) -> tuple[object, ...]:
    """Everything that a frame may change, except the verdicts' counters and the cursors of rr."""
    hops = tables.next_hops
    return bytes(tables.flows.buffer), len(tables.flows), list(hops.macs), list(hops.arms), len(hops)


def one_verdict(tables: Tables, frame: bytes, arm: int, csum_start: int) -> tuple[str, list[bytes]]:
    """Run one frame; returns its verdict and what was sent."""
    tables.fragments.clear()  # each frame by itself: none waits for another
    tables.fragment_bytes = 0
    verdicts, before = list(tables.verdicts), state_of(tables)
    engine = Watched([frame], arm, csum_start)
    forward(engine, tables, 0)
    grown = [name for name, a, b in zip(VERDICT_NAMES, verdicts, tables.verdicts, strict=True) if b != a]
    waits = sum(len(datagram.waiting) for datagram in tables.fragments.values())
    assert sum(tables.verdicts) + waits == sum(verdicts) + 1
    (name,) = grown or ["waits"]
    if name in ("forward", "reply"):
        service = tables.policy.by_number[1]
        assert service is not None
        assert len(engine.sent) == 1
        assert len(engine.sent[0].frame) == len(frame) + IN_FRONT.get(service.service.mode, 0)
    else:
        assert bytes(engine.last) == frame
        # An answer goes back where its frame came in, and only a segment of no flow gets one here.
        answers = [(each.frame[:6], each.arm) for each in engine.sent]
        assert not answers or (name == "drop_no_flow" and answers == [(frame[6:12], arm)])
        assert state_of(tables) == before
    return name, [sent.frame for sent in engine.sent]


@pytest.mark.parametrize("mode", list(Mode))
def test_any_bytes(mode: Mode) -> None:
    only = backends(1)  # A SYN on a closing flow would move on.
    tables = make_tables([service(mode, members=only), service(mode, name="u", protocol=ipv4.UDP)], 2)
    one_verdict(tables, request(), 0, 0)
    frames = st.one_of(st.tuples(st.binary(max_size=200), st.integers(0, 1)), mutated())

    @given(frame=frames, csum_start=st.sampled_from([0, 0, L4_AT, 38, 9_999]))
    @settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def holds(frame: tuple[bytes, int], csum_start: int) -> None:
        one_verdict(tables, *frame, csum_start)

    holds()
    # Else the frames were too bad to say anything of rewriting.
    assert tables.verdicts[FORWARD] > 100
    # The seeds' replies go to the client, as nat's do; fullnat's go to a SNAT address.
    assert tables.verdicts[REPLY] > 20 or mode is not Mode.NAT


class Sample(NamedTuple):
    """What a conversation is made of."""

    protocol: type[TCP | UDP]
    client: int
    port: int
    payload: bytes
    tos: int
    ident: int
    ttl: int


samples = st.builds(
    Sample,
    protocol=st.sampled_from([TCP, UDP]),
    client=st.integers(0x01000000, 0x7EFFFFFF),
    port=st.integers(1, 65535),
    payload=st.binary(max_size=64),
    tos=st.integers(0, 255),
    ident=st.integers(0, 65535),
    ttl=st.integers(2, 255),
)


def nat_tables(protocol: type[TCP | UDP]) -> Tables:
    number = ipv4.TCP if protocol is TCP else ipv4.UDP
    members = backends(1, port=8080)
    return make_tables([service(Mode.NAT, port=0, protocol=number, members=members)], 2, memory=1 << 14)


def both_ways(of: Sample) -> list[bytes]:
    """A client's request, and the answer of the backend that it must go to."""
    client = str(IPv4Address(of.client))
    rest: dict[str, Any] = {"tos": of.tos, "id": of.ident, "ttl": of.ttl}
    there = Ether(src=CLIENT_MAC, dst=OUR_MACS[0]) / IP(src=client, dst="10.77.0.100", **rest)
    back = Ether(src=B1_MAC, dst=OUR_MACS[1]) / IP(src="10.78.0.11", dst=client, **rest)
    return [
        bytes(there / of.protocol(sport=of.port, dport=53) / of.payload),
        bytes(back / of.protocol(sport=8080, dport=of.port) / of.payload),
    ]


@given(samples)
@settings(max_examples=600, deadline=None)
def test_incremental_checksums_equal_full_ones(of: Sample) -> None:
    tables = nat_tables(of.protocol)
    for arm, frame in enumerate(both_ways(of)):
        name, sent = one_verdict(tables, frame, arm, 0)
        assert name == ("forward", "reply")[arm]
        rebuilt = Ether(sent[0])
        del rebuilt[IP].chksum, rebuilt[of.protocol].chksum
        assert bytes(rebuilt) == sent[0]
        assert rebuilt[IP].ttl == of.ttl - 1


@given(samples)
@settings(max_examples=300, deadline=None)
def test_a_partial_checksum_is_that_of_the_new_pseudo_header(of: Sample) -> None:
    field = L4_AT + (16 if of.protocol is TCP else 6)
    tables = nat_tables(of.protocol)
    for arm, frame in enumerate(both_ways(of)):
        buffer = bytearray(frame)
        buffer[field : field + 2] = pseudo_sum(frame)
        _, sent = one_verdict(tables, bytes(buffer), arm, L4_AT)
        assert sent[0][field : field + 2] == pseudo_sum(sent[0])
        assert sent[0][L4_AT + 4 : field] == frame[L4_AT + 4 : field]


def pseudo_sum(frame: bytes) -> bytes:
    """What the kernel leaves in the field of a partial frame."""
    src, dst = frame[IP_AT + 12 : IP_AT + 16], frame[IP_AT + 16 : IP_AT + 20]
    length = int.from_bytes(frame[IP_AT + 2 : IP_AT + 4], "big") - ipv4.LENGTH
    protocol = ipv4.IpProto(frame[IP_AT + ipv4.PROTOCOL])
    return pseudo_header(src, dst, protocol, length).to_bytes(2, "big")


@given(samples.filter(lambda of: of.protocol is UDP), st.sampled_from([0, L4_AT, 66]))
@settings(max_examples=300, deadline=None)
def test_a_datagram_without_checksum_stays_without(of: Sample, csum_start: int) -> None:
    tables = nat_tables(UDP)
    for arm, frame in enumerate(both_ways(of)):
        none = frame[: L4_AT + 6] + b"\0\0" + frame[L4_AT + 8 :]
        _, sent = one_verdict(tables, none, arm, csum_start)
        assert sent[0][L4_AT + 6 :] == none[L4_AT + 6 :]
        assert sent[0][30:34] == (ip("10.78.0.11"), none[30:34])[arm]


def test_the_invariant_holds_for_every_prefix_of_a_good_frame() -> None:
    for mode in Mode:
        tables = make_tables([service(mode)], 2)
        frame = request()
        names = [one_verdict(tables, frame[:size], 0, 0)[0] for size in range(len(frame))]
        assert set(names) == {"drop_short", "drop_ip_length"}
        assert one_verdict(tables, frame, 0, 0)[0] == "forward"
