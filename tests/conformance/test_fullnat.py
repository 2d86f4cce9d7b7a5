"""fullnat's ports, on every executor: each free one is found, none is given twice, and they rest."""

from __future__ import annotations

from itertools import islice
from random import Random
from struct import unpack_from

import pytest

from l4raw.core.flows import flow_key
from l4raw.core.model import Mode, Snat
from l4raw.core.resting import REST_MS
from l4raw.core.room import bytes_for
from l4raw.core.snat import Pool, pool_of
from l4raw.core.states import expire
from l4raw.core.tables import Tables
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import (
    DROP_FLOWS_FULL,
    DROP_SNAT_EXHAUSTED,
    DROP_SNAT_NO_FLOW,
    FLOW_RESTING,
    FORWARD,
    REPLY,
)
from tests.crafted import TCP, UDP, Tuple5, build, ends_of
from tests.executors import Bursts, Executor, Helper, Outcome, connect
from tests.kernel import EXECUTORS
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, backends, counted, ip, make_tables, service

pytestmark = pytest.mark.native
each_executor = pytest.mark.parametrize("executor", EXECUTORS, ids=lambda e: e.name)

SNAT = ip("10.78.0.201")
SIXTEEN = (Snat(SNAT, 5000, 5015),)
PROTOCOLS = {"tcp": TCP, "udp": UDP}


def pool(*ranges: Snat) -> Pool:
    made = pool_of(ranges)
    assert made is not None
    return made


@pytest.mark.parametrize("size", [1, 2, 3, 16, 17, 18, 1000, 64_512])
def test_a_walk_has_every_port_once(size: int) -> None:
    first = Snat(SNAT, 1, max(1, size // 3))
    rest = size - first.last
    made = pool(first, *([Snat(ip("10.78.0.202"), 65_536 - rest, 65_535)] if rest else []))
    for value in (0, 1, 2**64 - 1, 0x1234_5678_9ABC_DEF0):
        seen = list(made.walk(value))
        assert len(seen) == len(set(seen)) == size
        assert {port for address, port in seen if address == SNAT} == set(range(1, first.last + 1))
    assert made.modulus >= size


def test_walks_differ() -> None:
    made = pool(Snat(SNAT, 1024, 65_535))
    random = Random(1)
    firsts = [[port for _, port in islice(made.walk(random.getrandbits(64)), 2)] for _ in range(200)]
    assert len({first for first, _ in firsts}) > 190
    assert len({(second - first) % made.modulus for first, second in firsts}) > 190


def one_backend(
    executor: type[Executor], *, memory: int = 1 << 16, snat: tuple[Snat, ...] = SIXTEEN
) -> Executor:
    """A service with b1 and a service with b2, for each protocol; all have one pool."""
    services = [
        service(
            Mode.FULLNAT,
            name=f"{backend.name}-{name}",
            port=80 + number,
            protocol=protocol,
            members=(backend,),
            snat=snat,
        )
        for name, protocol in PROTOCOLS.items()
        for number, backend in enumerate(backends(2, port=8080))
    ]
    return executor(make_tables(services, arms=2, memory=memory, new=executor.new))


def opening(client: int, port: int = 80, protocol: int = TCP, flags: int = tcp.SYN) -> bytes:
    of = Tuple5(ip("10.77.0.1"), client, VIP, port, protocol)
    return bytes(build(of, (OUR_MACS[0], CLIENT_MAC), flags))


def source_of(outcome: Outcome) -> tuple[bytes, int]:
    """What the backend sees as the client."""
    return ends_of(outcome.frame)[0], unpack_from("!H", outcome.frame, 34)[0]


def answer(source: tuple[bytes, int], backend: str = "10.78.0.11", flags: int = tcp.ACK) -> bytes:
    mac = CLIENT_MAC[:5] + ip(backend)[-1:]
    return bytes(build(Tuple5(ip(backend), 8080, *source, TCP), (OUR_MACS[1], mac), flags))


def expire_all(tables: Tables) -> int:
    return expire(tables, tables.flows.entries + tables.flows.overflow)


@each_executor
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_16_ports_take_16_flows_to_a_backend_and_the_17th_is_refused(
    executor: type[Executor], protocol: int
) -> None:
    balancer = one_backend(executor)
    sent = [balancer.run(opening(1000 + n, protocol=protocol), 0, 0) for n in range(16)]
    assert {outcome.verdict for outcome in sent} == {FORWARD}
    assert {source_of(outcome) for outcome in sent} == {(SNAT, port) for port in range(5000, 5016)}
    for n in range(3):
        assert balancer.run(opening(2000 + n, protocol=protocol), 0, 0).verdict == DROP_SNAT_EXHAUSTED
    assert balancer.tables.total_verdicts()[DROP_SNAT_EXHAUSTED] == 3
    assert list(balancer.tables.ports.take_refused().values()) == [3]
    assert balancer.tables.ports.take_refused() == {}
    # Another backend, or the other protocol, has the whole pool.
    others = [balancer.run(opening(2000 + n, port=81, protocol=protocol), 0, 0) for n in range(16)]
    assert {source_of(outcome)[1] for outcome in others} == set(range(5000, 5016))
    other = TCP + UDP - protocol
    assert balancer.run(opening(2000, protocol=other), 0, 0).verdict == FORWARD
    # And known flows go on.
    again = balancer.run(opening(1003, protocol=protocol, flags=tcp.ACK), 0, 0)
    assert source_of(again) == source_of(sent[3])
    assert len(balancer.tables.flows) == 2 * 33


@each_executor
def test_a_pool_is_used_to_its_last_port(executor: type[Executor]) -> None:
    """C looks at sixteen places; the ports that are left are elsewhere."""
    balancer = one_backend(
        executor, memory=1 << 18, snat=(Snat(SNAT, 5000, 5019), Snat(ip("10.78.0.202"), 7, 86))
    )
    sources = {source_of(balancer.run(opening(1000 + n), 0, 0)) for n in range(100)}
    assert len(sources) == 100
    assert balancer.run(opening(2000), 0, 0).verdict == DROP_SNAT_EXHAUSTED
    if isinstance(balancer.tables, SharedTables) and executor in (Helper, Bursts):
        assert 2 < balancer.tables.misses()["ports"] < 60


@each_executor
def test_two_services_share_a_pool_and_a_backend(executor: type[Executor]) -> None:
    """A reply's key is one for both: no port is given twice."""
    one, other = (
        service(Mode.FULLNAT, name=name, port=port, members=backends(1, port=8080), snat=snat)
        for name, port, snat in (("a", 80, SIXTEEN), ("b", 81, (Snat(SNAT, 5008, 5023),)))
    )
    balancer = executor(make_tables([one, other], arms=2, new=executor.new))
    first = [balancer.run(opening(1000 + n), 0, 0) for n in range(16)]
    second = [balancer.run(opening(1000 + n, port=81), 0, 0) for n in range(9)]
    assert [outcome.verdict for outcome in second] == [FORWARD] * 8 + [DROP_SNAT_EXHAUSTED]
    assert len({source_of(outcome) for outcome in first + second[:8]}) == 24


@each_executor
def test_a_port_rests_before_it_is_used_again(executor: type[Executor]) -> None:
    balancer = one_backend(executor, snat=(Snat(SNAT, 5000, 5000),))
    tables = balancer.tables
    source = source_of(balancer.run(opening(1000), 0, 0))
    assert balancer.run(answer(source), 1, 0).verdict == REPLY
    tables.now = 900_001
    assert expire_all(tables) == 1
    assert counted(tables)[1] == 0 and tables.current_flows(1) == 0
    resting = tables.flows.find(flow_key(ip("10.78.0.11"), 8080, *source, TCP))
    assert tables.flows.read(resting).state == FLOW_RESTING and len(tables.flows) == 1
    assert balancer.run(answer(source), 1, 0).verdict == DROP_SNAT_NO_FLOW
    assert tables.flows.read(resting).state == FLOW_RESTING
    assert balancer.run(opening(1001), 0, 0).verdict == DROP_SNAT_EXHAUSTED
    tables.now += REST_MS - 1
    expire_all(tables)
    assert balancer.run(opening(1001), 0, 0).verdict == DROP_SNAT_EXHAUSTED
    tables.now += 1
    expire_all(tables)
    assert len(tables.flows) == len(tables.ports) == tables.flows.resting == 0
    assert source_of(balancer.run(opening(1001), 0, 0)) == source


@each_executor
def test_a_port_of_a_flow_that_made_room_is_found_within_a_second(executor: type[Executor]) -> None:
    """Nobody tells the pool of it: a flood would have it walked through for each flow that it pushes out."""
    balancer = one_backend(executor, memory=1 << 18, snat=(Snat(SNAT, 5000, 5063),))
    tables = balancer.tables
    tables.now = 10 << 10
    assert {balancer.run(opening(1000 + n), 0, 0).verdict for n in range(64)} == {FORWARD}
    assert balancer.run(opening(2000), 0, 0).verdict == DROP_SNAT_EXHAUSTED
    for _ in range(8):
        assert tables.evict_half_open()
    sent = [balancer.run(opening(3000 + n), 0, 0).verdict for n in range(8)]
    assert set(sent) <= {FORWARD, DROP_SNAT_EXHAUSTED}
    tables.now += 1024
    left = 8 - sent.count(FORWARD)
    assert left, "each was among the first of its walk: nothing is shown"
    sent = [balancer.run(opening(4000 + n), 0, 0).verdict for n in range(left + 1)]
    assert sent == [FORWARD] * left + [DROP_SNAT_EXHAUSTED]


@each_executor
def test_a_client_may_come_back_while_its_connection_closes(executor: type[Executor]) -> None:
    """With the same port: its flow is found again, and so is its source."""
    balancer = one_backend(executor)
    source = source_of(balancer.run(opening(1000), 0, 0))
    assert balancer.run(answer(source, flags=tcp.FIN | tcp.ACK), 1, 0).verdict == REPLY
    assert balancer.run(opening(1000, flags=tcp.FIN | tcp.ACK), 0, 0).verdict == FORWARD
    assert source_of(balancer.run(opening(1000), 0, 0)) == source
    assert balancer.run(answer(source, flags=tcp.SYN | tcp.ACK), 1, 0).verdict == REPLY


@each_executor
def test_ports_at_rest_give_way_where_the_table_is_full(executor: type[Executor]) -> None:
    """The oldest first; then the table is full, as it would have been without them."""
    balancer = one_backend(executor, memory=bytes_for(40), snat=(Snat(SNAT, 5000, 5999),))
    tables, made = balancer.tables, 0
    room = tables.flows.capacity // 2
    while connect(balancer, opening(1000 + made)).verdict == FORWARD:
        made += 1
    assert made == room
    assert balancer.run(opening(1000 + made), 0, 0).verdict == DROP_FLOWS_FULL
    tables.now = 900_001
    assert expire_all(tables) == room
    assert len(tables.ports) == len(tables.flows) == room
    for n in range(room):
        assert connect(balancer, opening(3000 + n)).verdict == FORWARD
    assert len(tables.ports) == tables.flows.capacity % 2
    assert balancer.run(opening(9000), 0, 0).verdict == DROP_FLOWS_FULL
    assert len(tables.ports) == 0


@each_executor
def test_what_a_reload_adds_to_a_pool_is_used_at_once(executor: type[Executor]) -> None:
    balancer = one_backend(executor, snat=(Snat(SNAT, 5000, 5000),))
    assert balancer.run(opening(1000), 0, 0).verdict == FORWARD
    assert balancer.run(opening(1001), 0, 0).verdict == DROP_SNAT_EXHAUSTED
    larger = one_backend(executor, snat=(Snat(SNAT, 5000, 5001),))
    balancer.tables.install(larger.tables.policy)
    assert source_of(balancer.run(opening(1001), 0, 0)) == (SNAT, 5001)
