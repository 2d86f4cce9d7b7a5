"""Flows end by being silent."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet import UDP as scapy_udp
from scapy.layers.l2 import Ether

from l4raw.core.model import Mode, Scheduler
from l4raw.core.states import expire
from l4raw.core.tables import Tables
from l4raw.wire.abi import FLOW_CLOSING, FLOW_ESTABLISHED
from l4raw.wire.ipv4 import UDP
from tests.tables import counted, make_tables, service, weighted
from tests.unit.test_steer import backend_of, connect, decide, reply, request

WRAP = 1 << 32


def sweep(tables: Tables, now: int) -> int:
    tables.now = now % WRAP
    return expire(tables, tables.flows.entries + tables.flows.overflow)


@pytest.mark.parametrize("start", [0, WRAP - 30_000], ids=["zero", "clock wraps"])
@pytest.mark.parametrize(
    ("flags", "timeout"), [("S", 60_000), ("SS", 60_000), ("SA", 900_000), ("SAF", 120_000)]
)
def test_each_state_has_its_timeout(start: int, flags: str, timeout: int) -> None:
    tables = make_tables([service()])
    tables.now = start
    for flag in flags:
        decide(tables, request(flags=flag if flag != "F" else "FA"))
    assert sweep(tables, start + timeout) == 0
    assert sweep(tables, start + timeout + 1) == 1
    assert len(tables.flows) == 0


def test_both_directions_of_a_nat_flow_go_together_and_either_keeps_it() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    connect(tables)
    tables.now = 800_000
    assert decide(tables, reply(flags="A"), 1).name == "reply"
    assert sweep(tables, 1_700_000) == 0, "the backend spoke 900 s ago"
    assert len(tables.next_hops) == 4
    assert sweep(tables, 1_700_001) == 1
    assert len(tables.flows) == 0
    assert len(tables.next_hops) == 3, "the client's next hop went with its last flow"


@pytest.mark.parametrize("last", ["client", "backend"])
def test_whichever_side_spoke_last_counts_while_the_clock_wraps(last: str) -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    turns = {"client": (request(flags="A"), 0), "backend": (reply(flags="A"), 1)}
    order = sorted(turns, key=lambda side: side == last)
    tables.now = WRAP - 2_000
    connect(tables)
    for side, now in zip(order, (WRAP - 1_000, 1_000), strict=True):
        tables.now = now
        decide(tables, *turns[side])
    assert sweep(tables, 901_000) == 0
    assert sweep(tables, 901_001) == 1


def current(tables: Tables) -> list[int]:
    found = [tables.current_flows(backend) for backend in range(len(tables.backends))]
    assert found == counted(tables)
    return found[1:]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(("scheduler", "full"), [(Scheduler.LC, [4, 4, 4]), (Scheduler.WLC, [2, 4, 6])])
def test_a_flow_counts_for_lc_and_wlc_until_it_expires(
    mode: Mode, scheduler: Scheduler, full: list[int]
) -> None:
    """Twelve flows; all but those of b2 end; whoever has the fewest then gets the next ones."""
    tables = make_tables([service(mode, scheduler, members=weighted(1, 2, 3))], arms=2)
    began = {port: backend_of(connect(tables, port)) for port in range(12)}
    assert current(tables) == full
    for port, name in began.items():
        decide(tables, request(port, "A" if name == "b2" else "R"))
    assert sweep(tables, 120_001) == 12 - full[1]
    assert current(tables) == [0, full[1], 0]
    assert {backend_of(decide(tables, request(port))) for port in range(100, 104)} == {"b1", "b3"}
    for port in range(104, 100 + 12 - full[1]):
        decide(tables, request(port))
    assert current(tables) == full
    assert sweep(tables, 2_000_000) == 12
    assert current(tables) == [0, 0, 0]


def test_a_flow_that_was_refused_does_not_count() -> None:
    tables = make_tables([service(Mode.NAT, Scheduler.LC)], arms=2, hops=4)
    for port in range(3):
        decide(tables, request(port))
        assert decide(tables, request(50 + port, mac="02:00:00:00:00:99")).name == "drop_next_hops_full"
    assert sum(current(tables)) == 3


@pytest.mark.parametrize("side", ["client", "backend"])
def test_a_reset_from_either_side_closes_the_flow(side: str) -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    connect(tables)
    decide(tables, reply(flags="A"), 1)
    decide(tables, *((request(flags="R"), 0) if side == "client" else (reply(flags="R"), 1)))
    assert sweep(tables, 120_000) == 0
    assert sweep(tables, 120_001) == 1


def test_one_side_may_be_silent_for_longer_than_half_the_clock() -> None:
    """Syslog, a datagram a minute for a month: nobody ever answers."""
    tables = make_tables([service(Mode.NAT, protocol=UDP)], arms=2)
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    datagram = bytes(ether / IP(src="10.77.0.1", dst="10.77.0.100") / scapy_udp(sport=7, dport=80))
    for minute in range(30 * 24 * 60):
        tables.now = minute * 60_000 % WRAP
        decide(tables, datagram)
        if minute % 5 == 0:
            assert sweep(tables, tables.now) == 0, f"day {minute / 1440:.1f}"


def test_the_side_that_is_further_on_sets_the_timeout() -> None:
    tables = make_tables([service(Mode.NAT)], arms=2)
    flow = connect(tables).flow
    decide(tables, reply(flags="FA"), 1)
    peer = tables.flows.read(flow).peer - 1
    states = [tables.flows.read(index).state for index in (flow, peer)]
    assert states == [FLOW_ESTABLISHED, FLOW_CLOSING]
    assert sweep(tables, 120_000) == 0
    assert sweep(tables, 120_001) == 1


def test_a_small_budget_goes_round_the_whole_table() -> None:
    tables = make_tables([service()], memory=1 << 19)
    for port in range(300):
        decide(tables, request(port))
    tables.now = 60_001
    rounds = -(-(tables.flows.entries + tables.flows.overflow) // 64)
    assert sum(expire(tables, 64) for _ in range(rounds)) == 300
