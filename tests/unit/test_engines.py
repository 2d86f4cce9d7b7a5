"""The loop that engines serve: what is counted, and what happens when an egress takes no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.utils import wrpcap, wrpcapng

from l4raw.core.model import Mode
from l4raw.engine.base import Received, forward
from l4raw.engine.replay import ReplayEngine, read_capture
from l4raw.wire.abi import DROP_TX, FORWARD, PASS_NOT_IPV4, REPLY
from tests.tables import make_tables, service
from tests.unit.test_steer import reply, request


class FullEngine(ReplayEngine):
    """An egress without room."""

    def send(self, received: Received, arm: int) -> bool:
        return False


def test_a_frame_that_the_egress_refuses_is_counted_as_dropped_and_not_as_sent() -> None:
    tables = make_tables([service()])
    forward(FullEngine([request()]), tables, 0)
    assert tables.verdicts[DROP_TX] == 1 and tables.verdicts[FORWARD] == 0
    assert [traffic.packets for traffic in tables.backends] == [0, 0, 0, 0]
    assert [traffic.flows for traffic in tables.backends] == [0, 1, 0, 0]


def test_frames_and_bytes_are_counted_at_the_backend_in_both_directions() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    forward(ReplayEngine([request(), request(flags="A"), b"\xff" * 20]), tables, 0)
    forward(ReplayEngine([reply()], arm=1), tables, 0)
    first = tables.backends[1]
    assert (first.flows, first.packets, first.bytes) == (1, 2, 2 * len(request()))
    assert (first.reply_packets, first.reply_bytes) == (1, len(reply()))
    assert [tables.verdicts[v] for v in (FORWARD, REPLY, PASS_NOT_IPV4)] == [2, 1, 1]


def test_another_steer_may_look_on() -> None:
    from l4raw.core.steer import steer

    seen = []
    tables = make_tables([service()])
    forward(ReplayEngine([request()]), tables, 0, lambda *a: seen.append(steer(*a)) or seen[-1])
    assert [decision.name for decision in seen] == ["forward"]


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
    with pytest.raises(ValueError, match="no capture"):
        list(read_capture(text))
    other = tmp_path / "ip.pcap"
    wrpcap(str(other), [IP()], linktype=101)
    with pytest.raises(ValueError, match="not Ethernet"):
        list(read_capture(other))
    with pytest.raises(OSError):
        list(read_capture(tmp_path / "absent"))
