"""A client's flows go to one backend, on every executor, and when they do not any more."""

from __future__ import annotations

import pytest

from l4raw.core.affinity import recall
from l4raw.core.flows import flow_key
from l4raw.core.hashing import scale
from l4raw.core.model import Limits, Mode, Scheduler, Service, Snat
from l4raw.core.outage import without
from l4raw.core.states import expire
from l4raw.core.tables import Tables, compile_policy
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import (
    DROP_CLIENT_FLOWS,
    DROP_NO_BACKEND,
    DROP_NO_FLOW,
    EVENT_NO_AFFINITY,
    FLOW_AFFINITY,
    FLOWS_ALONE,
    FORWARD,
    RULE_AFFINITY,
    STRIPES,
)
from tests.crafted import TCP, Tuple5, build
from tests.executors import Executor, Helper, Reference, connect, state
from tests.kernel import EXECUTORS
from tests.tables import (
    CLIENT_MAC,
    OUR_MACS,
    SEED,
    SOURCES,
    VIP,
    backends,
    counted,
    done,
    ip,
    make_tables,
    service,
    shared,
    weighted,
)

pytestmark = pytest.mark.native
each_executor = pytest.mark.parametrize("kind", EXECUTORS, ids=lambda kind: kind.name)
each_scheduler = pytest.mark.parametrize("scheduler", Scheduler)
each_mode = pytest.mark.parametrize("mode", Mode)

KEPT_MS = 5_000
A, B = ip("10.77.0.11"), ip("10.77.0.12")
START = 0xFFFF_FFF0
"""Just before the clock begins again."""


def made(kind: type[Executor], what: Service | None = None, *, memory: int = 1 << 16) -> Executor:
    chosen = what or service(affinity=KEPT_MS)
    executor = kind(make_tables([chosen], arms=2, memory=memory, new=kind.new))
    executor.tables.now = START
    return executor


def opening(client: bytes, port: int, flags: int = tcp.SYN) -> bytes:
    return bytes(build(Tuple5(client, port, VIP, 80, TCP), (OUR_MACS[0], CLIENT_MAC), flags))


def went(executor: Executor, client: bytes, *ports: int) -> list[int]:
    """Which backend each new flow went to."""
    outcomes = [executor.run(opening(client, port), 0, 0) for port in ports]
    assert {outcome.verdict for outcome in outcomes} == {FORWARD}
    return [outcome.frame[5] - 10 for outcome in outcomes]


def later(executor: Executor, ms: int) -> None:
    executor.tables.now = executor.tables.now + ms & 0xFFFF_FFFF


def expire_all(tables: Tables) -> int:
    return expire(tables, tables.flows.entries + tables.flows.overflow)


def choices(tables: Tables) -> int:
    """Entries that are a client's choice."""
    flows = tables.flows
    return sum(flows.read(i).state == FLOW_AFFINITY for i in range(flows.entries + flows.overflow))


@each_executor
@each_mode
@each_scheduler
def test_all_flows_of_a_client_go_to_one_backend(
    scheduler: Scheduler, mode: Mode, kind: type[Executor]
) -> None:
    executor = made(kind, service(mode, scheduler, affinity=KEPT_MS))
    first = went(executor, A, *range(1000, 1020))
    assert first == first[:1] * 20
    if scheduler in (Scheduler.RR, Scheduler.WRR, Scheduler.LC, Scheduler.WLC):
        assert went(executor, B, *range(1000, 1005)) != first[:5], "another client has another choice"
    assert went(executor, A, 2000) == first[:1]
    tables = executor.tables
    assert choices(tables) <= 2 and sum(counted(tables)) == tables.counts.flows(1) == sum(
        tables.current_flows(each) for each in range(1, 4)
    )


@each_executor
@each_mode
def test_a_choice_is_kept_from_the_last_new_flow_on(mode: Mode, kind: type[Executor]) -> None:
    executor = made(kind, service(mode, Scheduler.RR, affinity=KEPT_MS))
    assert went(executor, A, 1) == [1]
    for port in range(2, 6):
        later(executor, KEPT_MS)
        assert went(executor, A, port) == [1], "the one before has renewed it"
    later(executor, KEPT_MS)
    assert executor.run(opening(A, 2, tcp.ACK), 0, 0).verdict == FORWARD
    later(executor, 1)
    assert went(executor, A, 6, 7) == [2, 2], "a frame of a known flow has not"
    assert choices(executor.tables) == 1


@each_executor
@each_scheduler
def test_a_backend_that_takes_no_more_flows_loses_its_clients(
    scheduler: Scheduler, kind: type[Executor]
) -> None:
    executor = made(kind, service(Mode.NAT, scheduler, affinity=KEPT_MS))
    tables, whole = executor.tables, executor.tables.policy
    (gone,) = went(executor, A, 1)
    tables.install(done(without(whole, [gone], SEED)))
    (other,) = went(executor, A, 2)
    assert other != gone
    tables.install(whole)
    assert went(executor, A, *range(3, 9)) == [other] * 6, "nor do they come back"
    assert executor.run(opening(A, 1, tcp.ACK), 0, 0).frame[5] - 10 == gone, "a known flow stays"
    tables.install(done(without(whole, [1, 2, 3], SEED)))
    assert executor.run(opening(A, 20), 0, 0).verdict == DROP_NO_BACKEND
    weights = [0 if number == other else 1 for number in (1, 2, 3)]
    few = service(Mode.NAT, scheduler, members=weighted(*weights), affinity=KEPT_MS)
    hops = {b.address: (index, 1) for index, b in enumerate(backends(), start=1)}
    tables.install(compile_policy([few], hops, SEED, previous=whole, sources=SOURCES))
    assert other not in went(executor, A, *range(30, 36))
    assert choices(tables) == 1


@each_executor
def test_it_is_forgotten_in_time_and_with_the_key(kind: type[Executor]) -> None:
    executor = made(kind)
    tables = executor.tables
    went(executor, A, 1)
    later(executor, KEPT_MS)
    assert expire_all(tables) == 0 and choices(tables) == 1
    later(executor, 1)
    assert expire_all(tables) == 0 and choices(tables) == 0, "it is no flow"
    assert tables.counts.flows(1) == 1 == tables.current_flows(1) and len(tables.flows) == 1
    went(executor, A, 2)
    hops = {b.address: (index, 1) for index, b in enumerate(backends(), start=1)}
    tables.install(compile_policy([service()], hops, SEED, previous=tables.policy))
    assert went(executor, A, 3, 4, 5) == [3, 1, 2]
    later(executor, 1)
    expire_all(tables)
    assert choices(tables) == 0 and tables.counts.flows(1) == 5


@each_executor
def test_what_is_refused_renews_nothing(kind: type[Executor]) -> None:
    executor = made(kind, service(limits=Limits(client_flows=2), affinity=KEPT_MS))
    assert went(executor, A, 1, 2) == [1, 1]
    later(executor, KEPT_MS)
    assert executor.run(opening(A, 3), 0, 0).verdict == DROP_CLIENT_FLOWS
    assert executor.run(opening(A, 4, tcp.ACK), 0, 0).verdict == DROP_NO_FLOW
    later(executor, 1)
    expire_all(executor.tables)
    assert choices(executor.tables) == 0
    assert executor.run(opening(B, 3, tcp.ACK), 0, 0).verdict == DROP_NO_FLOW
    assert choices(executor.tables) == 0


@each_executor
@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_the_last_quarter_of_the_table_is_for_flows(mode: Mode, kind: type[Executor]) -> None:
    executor = made(kind, service(mode, affinity=KEPT_MS), memory=1 << 15)
    tables = executor.tables
    capacity = tables.flows.capacity
    clients = [ip(f"10.77.{n // 250}.{1 + n % 250}") for n in range(300, 300 + capacity)]
    verdicts = [connect(executor, opening(each, 1)).verdict for each in clients]
    most = capacity - capacity // FLOWS_ALONE
    size = 2 if mode.is_nat else 1
    assert abs(choices(tables) - most // (1 + size)) <= 1
    assert len(tables.flows) > capacity - size, "flows have taken the rest"
    assert verdicts.count(FORWARD) == sum(counted(tables)) == (len(tables.flows) - choices(tables)) // size
    assert tables.total_events()[EVENT_NO_AFFINITY] == verdicts.count(FORWARD) - choices(tables)
    known = clients[0]
    (index,) = {tables.flows.find(flow_key(known, 1, VIP, 80, TCP))}
    backend = tables.flows.read(index).backend
    later(executor, 1)
    assert tables.free(tables.flows.find(flow_key(clients[1], 1, VIP, 80, TCP)), _lock(tables, clients[1]))
    assert went(executor, known, 2) == [backend], "who has a choice keeps it"


def _lock(tables: Tables, client: bytes) -> int:
    return tables.flows.read(tables.flows.find(flow_key(client, 1, VIP, 80, TCP))).lock


@each_executor
def test_a_flow_that_follows_takes_no_turn_even_if_it_is_left_to_python(kind: type[Executor]) -> None:
    """A pool of which the helper sees some ports: it leaves the flow to Python when these are taken."""
    snat = (Snat(ip("10.78.0.201"), 1, 60),)
    full = service(Mode.FULLNAT, Scheduler.RR, snat=snat, affinity=KEPT_MS)
    executor = made(kind, full, memory=1 << 17)
    assert went(executor, A, *range(1, 60)) == [1] * 59
    tables = executor.tables
    assert not isinstance(executor, Helper) or tables.misses()["ports"] > 0  # type: ignore[attr-defined]
    assert went(executor, B, 1) == [2]


def test_no_flow_has_such_a_key_and_the_scheduler_is_not_asked() -> None:
    executor = made(Reference)
    went(executor, A, 1)
    tables = executor.tables
    entry = tables.policy.by_number[1]
    assert entry is not None
    choice = recall(A, entry, tables)
    assert choice and choice.pick and choice.pick.rule == RULE_AFFINITY and choice.key[-1] == 0
    before = tables.cursors[1]
    went(executor, A, 2, 3)
    assert tables.cursors[1] == before


def test_c_looks_it_up_also_where_the_scheduler_is_no_look_up() -> None:
    helper = Helper(make_tables([service(scheduler=Scheduler.LC, affinity=KEPT_MS)], new=shared))
    tables = helper.tables
    assert isinstance(tables, SharedTables)
    went(helper, A, 1, 2, 3, 4)
    assert tables.misses()["rule"] == 1


def _stripe(tables: SharedTables, key: bytes) -> int:
    return scale(tables.flows.hash(key) >> 32, STRIPES)


@pytest.mark.parametrize("mode", Mode)
def test_c_does_not_choose_while_another_thread_does(mode: Mode) -> None:
    """The lock that is held is that of the choice: the flow is undone, and Python decides again."""
    helper = Helper(make_tables([service(mode, affinity=KEPT_MS)], arms=2, new=shared))
    tables = helper.tables
    assert isinstance(tables, SharedTables)
    entry = tables.policy.by_number[1]
    assert entry is not None
    choice = recall(A, entry, tables)
    assert choice is not None
    stripe = tables.layout.at["stripes"] + _stripe(tables, choice.key)
    stripe[0] = 1
    descriptor = helper._ffi.new("struct l4_frame *")
    buffer = helper._describe(descriptor, opening(A, 1), 0, 0)
    assert helper._lib.l4_steer(helper._view, descriptor, helper._results) == 255
    stripe[0] = 0
    assert buffer and len(tables.flows) == 0 and tables.misses()["busy"] == 0
    assert tables.current_flows(1) == tables.counts.flows(1) == 0 == len(tables.next_hops) - 3
    assert went(helper, A, 1, 2) == [2, 2], "that turn is lost"
    assert state(tables)


def test_python_follows_the_choice_of_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue has put it when Python comes to put its own."""
    tables = make_tables([service(affinity=KEPT_MS)], arms=2, new=shared)
    entry, insert = tables.policy.by_number[1], tables.flows.insert
    assert entry is not None

    def late(key: bytes, state: int, service: int, backend: int, *rest: int) -> int:
        if state == FLOW_AFFINITY:
            monkeypatch.undo()
            insert(key, state, service, 3, *rest)
        return insert(key, state, service, backend, *rest)

    monkeypatch.setattr(tables.flows, "insert", late)
    executor = EXECUTORS[1](tables)
    assert went(executor, A, 1, 2) == [3, 3]
    assert tables.current_flows(1) == 0 and tables.current_flows(3) == tables.counts.flows(1) == 2
