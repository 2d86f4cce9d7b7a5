"""The loop that engines serve: what is counted, and what happens when an egress takes no more."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from scapy.utils import wrpcap, wrpcapng

from l4raw.core.decision import Decision
from l4raw.core.model import Mode
from l4raw.core.steer import steer
from l4raw.core.tables import Arm, Tables
from l4raw.engine.base import Received, Steer, forward
from l4raw.engine.raw import RawEngine
from l4raw.engine.replay import ReplayEngine, read_capture
from l4raw.wire.abi import DROP_NO_FLOW, DROP_TX, FORWARD, PASS_NOT_IP, REPLY
from l4raw.wire.headers import Frame
from tests.tables import OUR_MACS, make_tables, service
from tests.unit.test_steer import reply, request


class FullEngine(ReplayEngine):
    """An egress without room."""

    def send(self, received: Received, arm: int, made: bytes | None = None) -> bool:
        return False


def test_a_frame_that_the_egress_refuses_is_counted_as_dropped_and_not_as_sent() -> None:
    tables = make_tables([service()])
    forward(FullEngine([request()]), tables, 0)
    assert tables.verdicts[DROP_TX] == 1 and tables.verdicts[FORWARD] == 0
    assert [traffic.packets for traffic in tables.backends] == [0, 0, 0, 0]
    assert [traffic.flows for traffic in tables.backends] == [0, 1, 0, 0]


def test_a_refused_frame_is_counted_at_the_backend_it_was_for() -> None:
    tables = make_tables([service()])
    forward(FullEngine([request()]), tables, 0)
    tables.next_hops.set_mac(2, None)
    forward(ReplayEngine([request(2), request(3), request(4), b"\xff" * 20]), tables, 0)
    assert [traffic.dropped for traffic in tables.backends] == [0, 1, 1, 0]
    assert [traffic.packets for traffic in tables.backends] == [0, 1, 0, 1]


def test_frames_and_bytes_are_counted_at_the_backend_in_both_directions() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    forward(ReplayEngine([request(), request(flags="A"), b"\xff" * 20]), tables, 0)
    forward(ReplayEngine([reply()], arm=1), tables, 0)
    first = tables.backends[1]
    assert (first.flows, first.packets, first.bytes) == (1, 2, 2 * len(request()))
    assert (first.reply_packets, first.reply_bytes) == (1, len(reply()))
    assert [tables.verdicts[v] for v in (FORWARD, REPLY, PASS_NOT_IP)] == [2, 1, 1]


def test_another_steer_may_look_on() -> None:
    seen: list[Decision] = []

    def decide(frame: Frame, arm: int, csum_start: int, tables: Tables, segment: int) -> Decision:
        seen.append(steer(frame, arm, csum_start, tables, segment))
        return seen[-1]

    forward(ReplayEngine([request()]), make_tables([service()]), 0, decide)
    assert [decision.name for decision in seen] == ["forward"]


def deciding(decision: Decision) -> Steer:
    """A steer that always says the same."""
    return lambda *_: decision


def test_frames_of_our_own_go_out_in_place_of_a_sent_one_and_as_answer_to_a_dropped_one() -> None:
    made = (b"first", b"second")
    for verdict in (FORWARD, DROP_NO_FLOW):
        tables, engine = make_tables([service()], arms=2), ReplayEngine([request()])
        forward(engine, tables, 0, deciding(Decision(verdict, arm=1, made=made)))
        assert engine.sent == [(b"first", 1), (b"second", 1)]
        assert tables.verdicts[verdict] == 1 == sum(tables.verdicts)


def test_an_answer_that_could_not_be_sent_changes_no_verdict_and_a_fragment_that_could_not_does() -> None:
    for verdict, counted in ((FORWARD, DROP_TX), (DROP_NO_FLOW, DROP_NO_FLOW)):
        tables = make_tables([service()])
        forward(FullEngine([request()]), tables, 0, deciding(Decision(verdict, made=(b"x",))))
        assert tables.verdicts[counted] == 1 == sum(tables.verdicts)


def test_the_headers_of_a_tunnel_go_between_ethernet_and_the_packet_after_the_edits() -> None:
    tables, engine = make_tables([service()]), ReplayEngine([request()])
    edits = (("eth.dst", 0, request()[:6], b"\2backe"),)
    forward(engine, tables, 0, deciding(Decision(FORWARD, edits=edits, outer=b"outer headers")))
    assert engine.sent == [(b"\2backe" + request()[6:14] + b"outer headers" + request()[14:], 0)]


@pytest.mark.parametrize("write", [wrpcap, wrpcapng])
def test_captures_are_read_frame_by_frame(write: object, tmp_path: Path) -> None:
    from scapy.layers.l2 import Ether

    path = tmp_path / "frames"
    write(str(path), [Ether(request(1)), Ether(request(2))])  # type: ignore[operator]
    assert list(read_capture(path)) == [request(1), request(2)]


def test_what_is_no_capture_of_ethernet_is_refused(tmp_path: Path) -> None:
    from scapy.layers.inet import IP

    text = tmp_path / "text"
    text.write_text("no capture, but long enough to look at")
    with pytest.raises(ValueError, match="no pcap"):
        list(read_capture(text))
    other = tmp_path / "ip.pcap"
    wrpcap(str(other), [IP()], linktype=101)
    with pytest.raises(ValueError, match="not Ethernet"):
        list(read_capture(other))
    with pytest.raises(OSError):
        list(read_capture(tmp_path / "absent"))


class Unreadable(socket.socket):
    """A socket whose first frame the kernel cannot describe."""

    errors: ClassVar[list[int]] = []

    def recvmsg_into(self, *arguments: Any) -> Any:
        if self.errors:
            raise OSError(self.errors[0], os.strerror(self.errors.pop(0)))
        return super().recvmsg_into(*arguments)

    def getsockopt(self, *arguments: Any) -> Any:
        return bytes(8)  # struct tpacket_stats: none lost


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RawEngine, socket.socket]]:
    """The raw engine on a socket pair, and the other end of it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    ours = Unreadable(fileno=ours.detach())
    monkeypatch.setattr("l4raw.engine.raw._packet_socket", lambda interface: ours)
    engine = RawEngine([Arm("eth0", OUR_MACS[0])]).open()
    try:
        yield engine, theirs
    finally:
        engine.close()
        theirs.close()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENETDOWN, errno.ENOBUFS])
def test_a_frame_that_cannot_be_read_is_counted_and_the_next_one_is_read(
    raw: tuple[RawEngine, socket.socket], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, wire = raw
    monkeypatch.setattr(Unreadable, "errors", [number])
    wire.send(bytes(10) + request())
    assert list(engine.poll(0)) == []
    assert [bytes(received.frame) for received in engine.poll(0)] == [request()]
    assert engine.statistics() == {"receive_lost": 0, "receive_unreadable": 1}


def test_a_socket_that_is_gone_ends_the_engine_in_words(
    raw: tuple[RawEngine, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, wire = raw
    monkeypatch.setattr(Unreadable, "errors", [errno.ENODEV])
    wire.send(b"x")
    with pytest.raises(OSError, match=r"receiving: No such device") as caught:
        list(engine.poll(0))
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, "eth0")


def test_the_virtio_net_header_says_where_a_partial_checksum_begins(
    raw: tuple[RawEngine, socket.socket],
) -> None:
    engine, wire = raw
    needs, start, valid = 1, (34).to_bytes(2, sys.byteorder), 2
    for flags in (needs, 0, valid):
        wire.send(bytes([flags, 0, 0, 0, 0, 0]) + start + bytes(2) + request())
    assert [received.csum_start for received in engine.poll(0)] == [34, 0, 0]


def test_the_virtio_net_header_says_how_long_the_segments_of_a_super_frame_will_be(
    raw: tuple[RawEngine, socket.socket],
) -> None:
    engine, wire = raw
    size = (1448).to_bytes(2, sys.byteorder)
    for gso_type in (1, 0):
        wire.send(bytes([0, gso_type, 0, 0]) + size + bytes(4) + request())
    assert [received.segment for received in engine.poll(0)] == [1448, 0]


def test_a_frame_of_our_own_goes_out_with_nothing_left_to_do(raw: tuple[RawEngine, socket.socket]) -> None:
    engine, wire = raw
    wire.send(bytes([1, 1]) + bytes(8) + request())
    (received,) = engine.poll(0)
    assert engine.send(received, 0, b"made") and wire.recv(99) == bytes(10) + b"made"
