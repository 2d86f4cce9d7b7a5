"""What the helper leaves to Python of segments without a flow: those that are answered, and no others."""

from __future__ import annotations

import pytest

from l4raw.core.flows import flow_key
from l4raw.core.model import Mode, Scheduler
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_NO_FLOW, DROP_TTL, FORWARD
from l4raw.wire.ipv4 import TCP
from tests.crafted import Tuple5, build
from tests.executors import Bursts, Executor, Helper, connect
from tests.kernel import EXECUTORS
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, ip, make_tables, service

pytestmark = pytest.mark.native


def segment(flags: int, sport: int = 1) -> bytes:
    return bytes(build(Tuple5(ip("10.77.0.1"), sport, VIP, 80, TCP), (OUR_MACS[0], CLIENT_MAC), flags))


@pytest.mark.parametrize("kind", [Helper, Bursts])
@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.MAGLEV, Scheduler.WLC])
@pytest.mark.parametrize("mode", [Mode.NAT, Mode.FULLNAT])
def test_a_reset_without_a_flow_costs_python_nothing(
    mode: Mode, scheduler: Scheduler, kind: type[Helper]
) -> None:
    executor = kind(make_tables([service(mode, scheduler)], arms=2, new=kind.new))
    assert isinstance(executor.tables, SharedTables)
    for flags, misses in ((tcp.RST, 0), (tcp.RST | tcp.ACK, 0), (tcp.ACK, 1), (tcp.SYN | tcp.ACK, 2)):
        outcome = executor.run(segment(flags), 0, 0)
        assert outcome.verdict == DROP_NO_FLOW
        assert executor.tables.misses() == dict.fromkeys(executor.tables.misses(), 0) | {"reset": misses}
        assert bool(outcome.made) == (not flags & tcp.RST)


@pytest.mark.parametrize("kind", [Helper, Bursts])
@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.LC])
def test_under_direct_return_none_is_left_to_python(scheduler: Scheduler, kind: type[Helper]) -> None:
    executor = kind(make_tables([service(scheduler=scheduler)], new=kind.new))
    assert isinstance(executor.tables, SharedTables)
    outcome = executor.run(segment(tcp.ACK), 0, 0)
    assert outcome.verdict == DROP_NO_FLOW and outcome.made == ()
    assert not any(executor.tables.misses().values())


@pytest.mark.parametrize("executor", EXECUTORS, ids=lambda e: e.name)
@pytest.mark.parametrize(
    ("mac", "ttl", "verdict"),
    [(CLIENT_MAC, 1, DROP_TTL), (b"\1" + CLIENT_MAC[1:], 64, FORWARD), (CLIENT_MAC, 64, FORWARD)],
    ids=["TTL", "MAC", "good"],
)
def test_a_syn_that_would_be_refused_ends_no_closing_flow(
    executor: type[Executor], mac: bytes, ttl: int, verdict: int
) -> None:
    balancer = executor(make_tables([service(Mode.NAT, Scheduler.SH)], arms=2, new=executor.new))
    flows, of = balancer.tables.flows, Tuple5(ip("10.77.0.1"), 1, VIP, 80, TCP)
    assert connect(balancer, segment(tcp.SYN)).verdict == FORWARD
    end = bytes(build(of, (OUR_MACS[0], CLIENT_MAC), tcp.RST, seq=1))
    assert balancer.run(end, 0, 0).verdict == FORWARD
    before = flows.read(flows.find(flow_key(*of)))
    again = bytes(build(of, (OUR_MACS[0], mac), tcp.SYN, ttl=ttl))
    assert balancer.run(again, 0, 0).verdict == verdict
    good = mac == CLIENT_MAC and ttl == 64
    now = flows.read(flows.find(flow_key(*of)))
    assert ((now.lock, now.state) == (before.lock, before.state)) is not good
