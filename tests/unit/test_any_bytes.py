"""The invariant: any bytes give exactly one verdict, no exception, and change nothing unless forwarded."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

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
from l4raw.wire.abi import VERDICT_NAMES
from l4raw.wire.checksum import checksum
from l4raw.wire.headers import Frame
from tests.tables import CLIENT_MAC, OUR_MACS, backends, make_tables, service
from tests.unit.test_steer import reply, request

TABLES = {
    mode: make_tables([service(mode, members=backends(port=8080 if mode is Mode.NAT else 0))], 2)
    for mode in Mode
}

seeds = st.sampled_from([request(), request(flags="A"), reply(), request() + b"\0" * 20])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good frame with some bytes changed, cut short or padded; often with its header checksum put right."""
    frame = bytearray(draw(seeds))
    for _ in range(draw(st.integers(0, 4))):
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    frame = frame[: draw(st.integers(0, len(frame)))] if draw(st.booleans()) else frame
    if draw(st.booleans()) and len(frame) >= ethernet.LENGTH + ipv4.LENGTH:
        at = ethernet.LENGTH + ipv4.CHECKSUM
        frame[at : at + 2] = b"\0\0"
        length = max(ipv4.LENGTH, (frame[ethernet.LENGTH] & 15) * 4)
        frame[at : at + 2] = checksum(frame[ethernet.LENGTH :][:length]).to_bytes(2, "big")
    return bytes(frame)


class Watched(ReplayEngine):
    """Keeps the buffer of the last frame."""

    last: Frame = memoryview(b"")

    def poll(self, timeout: float) -> Iterator[Received]:
        for received in super().poll(timeout):
            self.last = received.frame
            yield received


def one_verdict(tables: Tables, frame: bytes, arm: int, partial: bool) -> tuple[str, list[bytes]]:
    """Run one frame; returns its verdict and what was sent."""
    before = list(tables.verdicts)
    engine = Watched([frame], arm, partial)
    forward(engine, tables, 0)
    buffer = engine.last
    grown = [name for name, a, b in zip(VERDICT_NAMES, before, tables.verdicts, strict=True) if b != a]
    assert sum(tables.verdicts) == sum(before) + 1
    (name,) = grown
    if name not in ("forward", "reply"):
        assert bytes(buffer) == frame and not engine.sent
    else:
        assert len(engine.sent) == 1 and len(engine.sent[0].frame) == len(frame)
    return name, [sent.frame for sent in engine.sent]


@pytest.mark.parametrize("mode", list(Mode))
@given(frame=st.one_of(st.binary(max_size=200), mutated()), arm=st.integers(0, 1), partial=st.booleans())
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes(mode: Mode, frame: bytes, arm: int, partial: bool) -> None:
    one_verdict(TABLES[mode], frame, arm, partial)


@given(
    addresses=st.tuples(st.integers(1, 0xDFFFFFFF), st.integers(1, 65535)),
    protocol=st.sampled_from([TCP, UDP]),
    payload=st.binary(max_size=64),
    tos=st.integers(0, 255),
    ident=st.integers(0, 65535),
    ttl=st.integers(2, 255),
)
@settings(max_examples=600, deadline=None)
def test_incremental_checksums_equal_full_ones(
    addresses: tuple[int, int],
    protocol: type[TCP] | type[UDP],
    payload: bytes,
    tos: int,
    ident: int,
    ttl: int,
) -> None:
    number = 6 if protocol is TCP else 17
    tables = make_tables(
        [service(Mode.NAT, port=0, protocol=number, members=backends(port=8080))], 2, memory=1 << 14
    )
    ip = IP(src=str(IPv4Address(addresses[0])), dst="10.77.0.100", tos=tos, id=ident, ttl=ttl)
    frame = bytes(
        Ether(src=CLIENT_MAC, dst=OUR_MACS[0]) / ip / protocol(sport=addresses[1], dport=53) / payload
    )
    name, sent = one_verdict(tables, frame, 0, False)
    assert name == "forward"
    rebuilt = Ether(sent[0])
    del rebuilt[IP].chksum, rebuilt[protocol].chksum
    assert bytes(rebuilt) == sent[0]
    assert rebuilt[IP].ttl == ttl - 1


def test_the_invariant_holds_for_every_prefix_of_a_good_frame() -> None:
    for mode in Mode:
        tables = make_tables([service(mode)], 2)
        frame = request()
        names = [one_verdict(tables, frame[:size], 0, False)[0] for size in range(len(frame))]
        assert set(names) == {"drop_short", "drop_ip_length"}
        assert one_verdict(tables, frame, 0, False)[0] == "forward"
