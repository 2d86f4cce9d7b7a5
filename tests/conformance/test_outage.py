"""A backend goes down and comes back, in every executor: flows stay, new ones go to the others."""

from __future__ import annotations

import pytest

from l4raw.core.model import Mode, Scheduler
from l4raw.core.outage import without
from l4raw.core.tables import compile_policy
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_NO_BACKEND, FORWARD
from tests.crafted import TCP, Tuple5, build
from tests.executors import Executor, Outcome
from tests.kernel import EXECUTORS
from tests.tables import CLIENT_MAC, OUR_MACS, SEED, VIP, backends, done, ip, make_tables, service

pytestmark = pytest.mark.native

each_cell = pytest.mark.parametrize(
    ("mode", "scheduler"), [(mode, scheduler) for mode in Mode for scheduler in Scheduler]
)
each_executor = pytest.mark.parametrize("kind", EXECUTORS, ids=lambda kind: kind.name)


def send(executor: Executor, ports: range, flags: int) -> list[Outcome]:
    """A segment of each flow, of which these are the client's ports."""
    macs = OUR_MACS[0], CLIENT_MAC
    flows = [Tuple5(ip("10.77.0.1"), port, VIP, 80, TCP) for port in ports]
    return [executor.run(bytes(build(flow, macs, flags)), 0, 0) for flow in flows]


def backends_of(outcomes: list[Outcome]) -> list[int]:
    """Which backend each went to: its MAC address ends in 11, 12, 13."""
    assert {outcome.verdict for outcome in outcomes} == {FORWARD}
    return [outcome.frame[5] - 10 for outcome in outcomes]


@each_executor
@each_cell
def test_flows_stay_and_new_ones_go_elsewhere(mode: Mode, scheduler: Scheduler, kind: type[Executor]) -> None:
    executor = kind(make_tables([service(mode, scheduler)], arms=2, memory=1 << 20, new=kind.new))
    tables = executor.tables
    whole = tables.policy
    old, new, newer = range(1000, 1090), range(2000, 2090), range(3000, 3090)
    began = backends_of(send(executor, old, tcp.SYN))
    if scheduler is not Scheduler.SH:  # all are of one client
        assert set(began) == {1, 2, 3}
    gone = began[0]

    tables.install(done(without(whole, [gone], SEED)))
    assert backends_of(send(executor, old, tcp.ACK)) == began
    others = backends_of(send(executor, new, tcp.SYN))
    assert gone not in others
    assert set(others) == {1, 2, 3} - {gone} or scheduler is Scheduler.SH

    tables.install(whole)
    assert backends_of(send(executor, old, tcp.ACK)) == began
    assert backends_of(send(executor, new, tcp.ACK)) == others
    assert gone in backends_of(send(executor, newer, tcp.SYN))

    tables.install(done(without(whole, [1, 2, 3], SEED)))
    assert backends_of(send(executor, old, tcp.ACK)) == began
    assert {each.verdict for each in send(executor, range(4000, 4003), tcp.SYN)} == {DROP_NO_BACKEND}


@each_executor
@pytest.mark.parametrize("count", [3, 10, 50])
def test_a_configuration_without_one_backend_moves_no_flow(count: int, kind: type[Executor]) -> None:
    """As a reload does it: another policy, with the numbers of the one before."""
    members = backends(count)
    maglev = service(scheduler=Scheduler.MAGLEV, members=members)
    executor = kind(make_tables([maglev], memory=1 << 20, new=kind.new))
    tables, old = executor.tables, range(1000, 1200)
    began = backends_of(send(executor, old, tcp.SYN))
    hops = {e.backend.address: (e.next_hop, e.arm) for e in tables.policy.backends if e}
    less = service(scheduler=Scheduler.MAGLEV, members=members[1:])
    tables.install(compile_policy([less], hops, SEED, previous=tables.policy))
    assert 1 in began
    assert backends_of(send(executor, old, tcp.ACK)) == began
    assert 1 not in backends_of(send(executor, range(2000, 2200), tcp.SYN))
