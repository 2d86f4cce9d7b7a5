"""The key `full` of a service, on every executor: who makes room, goes on without an entry, or is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from l4raw.core.flows import flow_key
from l4raw.core.full import near, oldest_in, oldest_near
from l4raw.core.model import Full, Limits, Mode, Scheduler, Service
from l4raw.engine.shared import SharedTables
from l4raw.wire.abi import (
    DROP_FLOWS_FULL,
    EVENT_EVICTED_HALF_OPEN,
    EVENT_EVICTED_OLDEST,
    EVENT_STATELESS,
    FORWARD,
    REPLY,
    SLOTS,
    STREAM_MS,
)
from tests.crafted import UDP, Tuple5, build
from tests.executors import Executor
from tests.kernel import EXECUTORS
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, backends, ip, make_tables, service

pytestmark = pytest.mark.native
each_executor = pytest.mark.parametrize("executor", EXECUTORS, ids=lambda e: e.name)

MEMORY = 1 << 14
FILLERS, OTHERS = 53, 54
"""Ports of two services."""


def dns(port: int, full: Full, mode: Mode = Mode.DSR_L2, limits: Limits | None = None) -> Service:
    """A UDP service at this port."""
    made = service(mode, Scheduler.SH, name=f"at-{port}", port=port, protocol=UDP, members=backends(3))
    return replace(made, full=full, limits=limits or made.limits)


def of(client: int, port: int) -> Tuple5:
    """A client's flow, each from an address of its own."""
    return Tuple5(ip(str(IPv4Address("10.77.0.0") + client)), 4000, VIP, port, UDP)


def datagram(client: int, port: int) -> bytes:
    return bytes(build(of(client, port), (OUR_MACS[0], CLIENT_MAC), 0))


def answer(client: int, backend: bytes) -> bytes:
    """What the backend with this address says to it."""
    there = of(client, FILLERS)
    mac = CLIENT_MAC[:5] + backend[-1:]
    return bytes(build(Tuple5(backend, there.dport, there.src, there.sport, UDP), (OUR_MACS[1], mac), 0))


def key_of(client: int, port: int) -> bytes:
    each = of(client, port)
    return flow_key(each.src, each.sport, each.dst, each.dport, each.protocol)


def prove(balancer: Executor, client: int) -> None:
    """Its flow is half-open no more: there is a second datagram; under NAT, long after an answer."""
    known = balancer.tables.flows.look_up(key_of(client, FILLERS))
    assert known
    if known.peer:
        assert balancer.run(answer(client, known.peer[0][0]), 1, 0).verdict == REPLY
        balancer.tables.now += STREAM_MS
    assert balancer.run(datagram(client, FILLERS), 0, 0).verdict == FORWARD


def filled(executor: type[Executor], *services: Service) -> Executor:
    """With as many flows at FILLERS, none of them new any more, as the table has room for; ms after ms."""
    balancer = executor(make_tables(list(services), arms=2, memory=MEMORY, new=executor.new))
    tables, client = balancer.tables, 3000
    entries = 2 if services[0].mode.is_nat else 1
    while tables.flows.used + entries <= tables.flows.capacity:
        tables.now += 1
        assert balancer.run(datagram(client, FILLERS), 0, 0).verdict == FORWARD
        prove(balancer, client)
        client += 1
    return balancer


@each_executor
@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_the_one_that_was_silent_longest_goes(executor: type[Executor], mode: Mode) -> None:
    balancer = filled(executor, dns(FILLERS, Full.EVICT_OLDEST, mode))
    tables, flows = balancer.tables, balancer.tables.flows
    if mode.is_nat:  # The later one of both directions counts.
        for client in range(3000, 3000 + flows.used // 2, 2):
            tables.now += 1
            prove(balancer, client)
    for client in range(20_000, 20_100):
        tables.now += 1
        goes, _ = oldest_near(tables, key_of(client, FILLERS))
        gone, used = flows.key(goes), flows.used
        assert balancer.run(datagram(client, FILLERS), 0, 0).verdict == FORWARD
        assert flows.find(key_of(client, FILLERS)) >= 0
        assert flows.find(gone) < 0
        assert flows.used == used
        prove(balancer, client)
    assert tables.total_events()[EVENT_EVICTED_OLDEST] == 100
    assert sum(map(tables.current_flows, range(1, 4))) == flows.used // (2 if mode.is_nat else 1)


@each_executor
def test_the_busiest_flow_does_not_go_because_it_was_seen_a_tick_later(executor: type[Executor]) -> None:
    """Another queue may have read the clock later, and noted its frame before this one looks."""
    balancer = filled(executor, dns(FILLERS, Full.EVICT_OLDEST))
    tables, flows = balancer.tables, balancer.tables.flows
    tables.now += 5000
    pair = next(near(tables, key_of(20_000, FILLERS)))
    places = [bucket * SLOTS + slot for bucket in pair for slot in range(SLOTS)]
    known = [index for index in places if flows.read(index).state]
    assert len(known) >= 2
    busiest, entry = known[-1], flows.read(known[-1])
    flows.touch(busiest, entry, entry.state, tables.now + 10, entry.packets, entry.sequence)
    key = flows.key(busiest)
    assert balancer.run(datagram(20_000, FILLERS), 0, 0).verdict == FORWARD
    assert tables.total_events()[EVENT_EVICTED_OLDEST] == 1
    assert flows.find(key) == busiest


@each_executor
@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_a_new_flow_finds_one_that_goes_also_where_its_own_buckets_are_empty(
    executor: type[Executor], mode: Mode
) -> None:
    """A SYN that is sent again has the same ones: else its client is refused for as long as they are."""
    balancer = filled(executor, dns(FILLERS, Full.EVICT_OLDEST, mode))
    tables, used = balancer.tables, balancer.tables.flows.used
    lonely = next(
        client
        for client in range(20_000, 60_000)
        if oldest_in(tables, next(near(tables, key_of(client, FILLERS)))) == (-1, 0)
    )
    assert balancer.run(datagram(lonely, FILLERS), 0, 0).verdict == FORWARD
    assert tables.flows.find(key_of(lonely, FILLERS)) >= 0
    assert tables.flows.used == used
    assert tables.total_events()[EVENT_EVICTED_OLDEST] == 1


@each_executor
def test_no_flow_goes_of_a_service_that_does_not_evict(executor: type[Executor]) -> None:
    both = dns(FILLERS, Full.REFUSE_NEW), dns(OTHERS, Full.EVICT_OLDEST)
    balancer = filled(executor, *both)
    for port in (FILLERS, OTHERS):
        assert balancer.run(datagram(1, port), 0, 0).verdict == DROP_FLOWS_FULL
    assert balancer.tables.flows.used == balancer.tables.flows.capacity
    assert balancer.tables.total_events()[EVENT_EVICTED_OLDEST] == 0


@each_executor
@pytest.mark.parametrize("full", [Full.REFUSE_NEW, Full.EVICT_OLDEST])
@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_while_the_table_is_full_half_open_flows_make_room_and_no_others(
    executor: type[Executor], mode: Mode, full: Full
) -> None:
    balancer = filled(executor, dns(FILLERS, full, mode))
    tables, flows = balancer.tables, balancer.tables.flows
    index = flows.find(key_of(3000, FILLERS))
    assert tables.free(index, flows.read(index).lock)
    proved = [
        client for client in range(3001, 3000 + flows.capacity) if flows.find(key_of(client, FILLERS)) >= 0
    ]
    for client in range(20_000, 20_100):
        assert balancer.run(datagram(client, FILLERS), 0, 0).verdict == FORWARD
        assert flows.find(key_of(client, FILLERS)) >= 0
    assert tables.total_events()[EVENT_EVICTED_HALF_OPEN] == 99
    assert tables.total_events()[EVENT_EVICTED_OLDEST] == 0
    assert all(flows.find(key_of(client, FILLERS)) >= 0 for client in proved)
    prove(balancer, 20_099)
    refused = balancer.run(datagram(20_100, FILLERS), 0, 0).verdict == DROP_FLOWS_FULL
    assert refused is (full is Full.REFUSE_NEW)


@each_executor
@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_the_oldest_of_the_half_open_flows_goes_first(executor: type[Executor], mode: Mode) -> None:
    balancer = filled(executor, dns(FILLERS, Full.REFUSE_NEW, mode))
    tables, flows = balancer.tables, balancer.tables.flows
    for client in range(3000, 3003):
        index = flows.find(key_of(client, FILLERS))
        assert tables.free(index, flows.read(index).lock)
    waiting: list[int] = []
    for client in range(20_000, 20_050):
        assert balancer.run(datagram(client, FILLERS), 0, 0).verdict == FORWARD
        waiting.append(client)
        assert [flows.find(key_of(each, FILLERS)) >= 0 for each in waiting[-4:]] == [False, True, True, True][
            -len(waiting) :
        ]
    prove(balancer, 20_048)
    for client in range(20_050, 20_055):
        assert balancer.run(datagram(client, FILLERS), 0, 0).verdict == FORWARD
    assert flows.find(key_of(20_048, FILLERS)) >= 0


@each_executor
@pytest.mark.parametrize("full", [Full.REFUSE_NEW, Full.EVICT_OLDEST, Full.STATELESS])
def test_a_place_that_somebody_is_about_to_fill_keeps_nobody_waiting(
    executor: type[Executor], full: Full
) -> None:
    """As when a thread loses its processor between the two."""
    balancer = filled(executor, dns(FILLERS, full))
    tables = balancer.tables
    place = tables.take_place()
    verdict = DROP_FLOWS_FULL if full is Full.REFUSE_NEW else FORWARD
    for client in range(20_000, 20_000 + tables.flows.share.places // 2):
        assert balancer.run(datagram(client, FILLERS), 0, 0).verdict == verdict
    if isinstance(tables, SharedTables):
        assert tables.misses()["busy"] == 0
    tables.drop_place(place)


@each_executor
@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.DSR_IPIP])
def test_a_frame_goes_where_the_ring_says_without_an_entry(executor: type[Executor], mode: Mode) -> None:
    limited = dns(OTHERS, Full.STATELESS, mode, Limits(flows=5))
    empty = executor(make_tables([limited], arms=2, memory=MEMORY, new=executor.new))
    balancer = filled(executor, dns(FILLERS, Full.REFUSE_NEW), limited)
    tables = balancer.tables
    for number in range(50):
        frame = datagram(20 + number % 5, OTHERS)
        expected = empty.run(frame, 0, 0)
        assert balancer.run(frame, 0, 0) == expected
    assert tables.flows.used == tables.flows.capacity
    assert tables.total_events()[EVENT_STATELESS] == 50
    traffic = [tables.total_traffic(number) for number in range(4, 7)]
    assert sum(each.packets for each in traffic) == 50
    assert sum(each.flows for each in traffic) == 0


@each_executor
def test_with_room_again_a_stateless_flow_gets_its_entry(executor: type[Executor]) -> None:
    balancer = filled(executor, dns(FILLERS, Full.STATELESS))
    flows = balancer.tables.flows
    assert balancer.run(datagram(1, FILLERS), 0, 0).verdict == FORWARD
    assert flows.find(key_of(1, FILLERS)) < 0
    index = flows.find(key_of(3000, FILLERS))
    assert balancer.tables.free(index, flows.read(index).lock)
    assert balancer.run(datagram(1, FILLERS), 0, 0).verdict == FORWARD
    assert flows.find(key_of(1, FILLERS)) >= 0
    assert balancer.tables.total_events()[EVENT_STATELESS] == 1
