"""Who gets a reset, how often, and with which numbers: the bytes of some are in tests/vectors/resets.py."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from l4raw.core.decision import Decision
from l4raw.core.model import Acl, Mode, Scheduler
from l4raw.core.steer import steer
from l4raw.core.tables import Tables
from l4raw.engine.base import forward
from l4raw.engine.replay import ReplayEngine, Sent
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_NO_FLOW
from tests.tables import ip, make_tables, service

FLAGS = "FSRPAUEC"
"""From bit 0 on."""


def segment(flags: str = "A", src: str = "10.77.0.1", seq: int = 77, ack: int = 99) -> bytes:
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    packet = IP(src=src, dst="10.77.0.100") / TCP(sport=1, dport=80, flags=flags, seq=seq, ack=ack)
    return bytes(ether / packet / Raw(b"12345"))


def decide(tables: Tables, frame: bytes) -> Decision:
    return steer(frame, 0, 0, tables)


def nat() -> Tables:
    return make_tables([service(Mode.NAT)], arms=2)


def test_every_combination_of_flags() -> None:
    for bits in range(256):
        names = "".join(name for bit, name in enumerate(FLAGS) if bits >> bit & 1)
        tables = nat()
        decision = decide(tables, segment(names))
        if bits & (tcp.SYN | tcp.ACK | tcp.FIN | tcp.RST) == tcp.SYN:
            assert decision.name == "forward" and not decision.made
            continue
        assert decision.verdict == DROP_NO_FLOW
        if bits & tcp.RST:
            assert decision.made == ()
            continue
        (made,) = decision.made
        answer = Ether(made)
        length = 5 + ("S" in names) + ("F" in names)
        want = ("R", 99, 0) if "A" in names else ("RA", 0, 77 + length)
        assert (answer[TCP].flags, answer[TCP].seq, answer[TCP].ack) == want, names
        assert len(made) == 54 and decision.arm == 0
        assert decide(tables, segment("RA")).made == (), "a reset is not answered"


def test_so_many_at_once_and_one_more_each_millisecond() -> None:
    tables = nat()
    tables.now = 0xFFFF_FFF0
    frames = [segment(ack=number) for number in range(60)]
    made = [decide(tables, frame) for frame in frames]
    assert [len(each.made) for each in made] == [1] * 50 + [0] * 10
    assert {each.verdict for each in made} == {DROP_NO_FLOW}
    tables.now = 4  # 20 ms later, as the clock wraps
    assert sum(len(decide(tables, frame).made) for frame in frames) == 20
    assert tables.errors.tokens == tables.errors.size, "ICMP errors have a bucket of their own"


@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.DSR_IPIP, Mode.DSR_GUE])
@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.LC])
def test_under_direct_return_the_backend_may_know_it(mode: Mode, scheduler: Scheduler) -> None:
    decision = decide(make_tables([service(mode, scheduler)]), segment())
    assert decision.verdict == DROP_NO_FLOW and decision.made == ()


def test_whom_the_acl_keeps_out_gets_no_answer() -> None:
    tables = make_tables([service(Mode.NAT, acl=Acl(deny=((ip("10.77.0.1"), 32),)))], arms=2)
    assert decide(tables, segment()).made == ()
    assert decide(tables, segment(src="10.77.0.2")).made == (), "a martian: our own address"
    assert len(decide(tables, segment(src="10.77.0.3")).made) == 1


def test_the_loop_of_the_engines_sends_it_and_counts_the_drop() -> None:
    tables = nat()
    engine = ReplayEngine([segment(), segment("R")])
    forward(engine, tables, 0)
    (made,) = decide(nat(), segment()).made
    assert engine.sent == [Sent(made, 0)]
    assert tables.verdicts[DROP_NO_FLOW] == sum(tables.verdicts) == 2
