"""A client that begins anew on a known flow: which backend it gets, and what it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4raw.core.limits import CLIENT as PLACE
from l4raw.core.limits import CLIENTS_SIZE, USAGE
from l4raw.core.model import Acl, Limits, Mode, Scheduler, Service, Snat
from l4raw.core.outage import without
from l4raw.core.tables import Tables, compile_policy
from l4raw.wire import tcp
from l4raw.wire.abi import (
    CLIENT_PLACES,
    DROP_ACL,
    DROP_CLIENT_FLOWS,
    DROP_CLIENT_RATE,
    DROP_SERVICE_RATE,
    DROP_SNAT_EXHAUSTED,
    DROP_TTL,
    END_WINDOW,
    FLOW_ESTABLISHED,
    FORWARD,
    FRAGMENTED,
    REPLY,
    STREAM_MS,
)
from l4raw.wire.ipv4 import TCP, UDP
from tests.conformance.test_states import BACKEND, CLIENT, Conversation
from tests.crafted import Tuple5, build, tuple_of
from tests.executors import Executor
from tests.kernel import EXECUTORS
from tests.tables import CLIENT_MAC, OUR_MACS, SEED, VIP, backends, done, ip, make_tables, service

pytestmark = pytest.mark.native
each_executor = pytest.mark.parametrize("executor", EXECUTORS, ids=lambda e: e.name)
NAT = pytest.mark.parametrize("mode", [Mode.NAT, Mode.FULLNAT])
EACH_RATE = pytest.mark.parametrize("limits", [Limits(new_per_s=9), Limits(client_new_per_s=9)])
NAT_AND_DSR = pytest.mark.parametrize("mode", [Mode.NAT, Mode.FULLNAT, Mode.DSR_L2])


def conversation(executor: type[Executor], of: Service) -> Conversation:
    return Conversation(executor(make_tables([of], arms=2, new=executor.new)), of.protocol)


def lose_its_backend(it: Conversation) -> None:
    """It takes no new flows from now on."""
    it.tables.install(done(without(it.tables.policy, {it.entry().backend}, SEED)))


def goes_on(it: Conversation, flags: int = tcp.SYN, seq: int = 7_000_000) -> bool:
    """Whether another SYN, or datagram, goes to the backend of the first one."""
    before, outcome = it.opened.frame, it.say(seq, 0, flags)
    assert outcome.verdict == FORWARD
    if it.at_backend != it.of:
        read = tuple_of(outcome.frame)
        assert read is not None
        return read.dst == it.at_backend.dst
    return outcome.frame[:6] == before[:6]


def connect(it: Conversation, mode: Mode) -> None:
    """What follows the SYN, as far as the balancer sees it."""
    if mode.is_nat:
        it.establish()
    else:
        it.say(CLIENT + 1, BACKEND + 1)


def frame(flags: int, sport: int = 4000, ttl: int = 64, body: bytes = b"") -> bytes:
    """Of the client of a conversation."""
    of = Tuple5(ip("10.77.0.1"), sport, VIP, 80, TCP)
    return bytes(build(of, (OUR_MACS[0], CLIENT_MAC), flags, ttl, body))


def levels(tables: Tables) -> tuple[int, int]:
    """Of the service, and of the one client."""
    counts = tables.counts
    starts = range(0, len(counts.clients), CLIENTS_SIZE)
    places = [start + 16 + i * PLACE.size for start in starts for i in range(CLIENT_PLACES)]
    of_service = USAGE.unpack_from(counts.usage, USAGE.size)[0]
    return of_service, sum(PLACE.unpack_from(counts.clients, place)[3] for place in places)


@each_executor
@NAT_AND_DSR
def test_who_was_never_answered_leaves_a_backend_that_is_down(executor: type[Executor], mode: Mode) -> None:
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP))
    assert goes_on(it)
    lose_its_backend(it)
    if not mode.is_nat:
        it.clock(STREAM_MS - 1)
        assert goes_on(it), "the answer may be on its way, past the balancer"
        it.clock(STREAM_MS)
    assert not goes_on(it)


@each_executor
@NAT_AND_DSR
def test_who_was_answered_stays(executor: type[Executor], mode: Mode) -> None:
    """The SYN was sent again before its answer arrived."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP))
    lose_its_backend(it)
    if mode.is_nat:
        assert it.answer(BACKEND, CLIENT + 1, tcp.SYN | tcp.ACK).verdict == REPLY
    assert goes_on(it, seq=CLIENT)
    assert goes_on(it, tcp.ACK, CLIENT + 1)


@each_executor
@NAT_AND_DSR
def test_who_is_connected_stays(executor: type[Executor], mode: Mode) -> None:
    """A SYN can be anyone's."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP))
    connect(it, mode)
    lose_its_backend(it)
    it.clock(60_000)
    assert goes_on(it)


@each_executor
@NAT_AND_DSR
def test_who_guesses_ends_no_connection_of_a_backend_that_takes_no_flows(
    executor: type[Executor], mode: Mode
) -> None:
    """An idle one: for the balancer, its backend is as silent as one that is dead."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP))
    connect(it, mode)
    lose_its_backend(it)
    it.clock(60_000)
    for number in range(0, 1 << 32, END_WINDOW):
        it.say(number, 0, tcp.FIN, mac=b"\2evil!")
    it.clock(60_000)
    it.say(12345, 0, tcp.SYN, mac=b"\2evil!")
    assert goes_on(it, tcp.ACK, CLIENT + 1)
    if mode.is_nat:
        assert it.answer(BACKEND + 1, CLIENT + 1).verdict == REPLY


@each_executor
@NAT
def test_who_has_closed_its_end_gets_its_answer(executor: type[Executor], mode: Mode) -> None:
    """However late, and whoever sends a SYN meanwhile."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP))
    it.establish()
    it.say(CLIENT + 1, BACKEND + 1, tcp.FIN | tcp.ACK)
    lose_its_backend(it)
    it.clock(60_000)
    it.say(12345, 0, tcp.SYN, mac=b"\2evil!")
    assert it.answer(BACKEND + 1, CLIENT + 2).verdict == REPLY


@each_executor
@NAT
def test_a_datagram_without_an_answer_leaves_a_backend_that_is_down(
    executor: type[Executor], mode: Mode
) -> None:
    """Logs and telemetry, from one port."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=UDP))
    assert goes_on(it)
    lose_its_backend(it)
    assert not goes_on(it)
    answered = conversation(executor, service(mode, Scheduler.RR, protocol=UDP))
    answered.answer(0, 0)
    lose_its_backend(answered)
    assert goes_on(answered)


@each_executor
@pytest.mark.parametrize("limits", [Limits(client_new_per_s=3), Limits(new_per_s=3)])
@NAT_AND_DSR
def test_one_flow_is_not_any_number_of_connections(
    executor: type[Executor], mode: Mode, limits: Limits
) -> None:
    """The client aborts with data on its way, which its backend believes; and begins anew."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP, limits=limits))
    client, backend = CLIENT, BACKEND
    opened = 0
    for _ in range(10):
        opened += 1
        if mode.is_nat:
            it.establish(client, backend)
        else:
            it.say(client + 1, backend + 1)
        it.say(client + 1 + 300, backend + 1, tcp.RST | tcp.ACK)
        client, backend = client + 5_000_000, backend + 9_000_000
        again = it.say(client, 0, tcp.SYN)
        if again.verdict != FORWARD:
            break
    assert again.verdict == (DROP_CLIENT_RATE if limits.client_new_per_s else DROP_SERVICE_RATE)
    assert opened == 3
    assert it.tables.counts.flows(1) == 1, "and it is one flow"
    it.clock(1000)
    assert it.say(client, 0, tcp.SYN).verdict == FORWARD


@each_executor
def test_its_own_place_is_not_what_a_flow_is_refused_for(executor: type[Executor]) -> None:
    it = conversation(
        executor, service(Mode.NAT, Scheduler.RR, protocol=TCP, limits=Limits(flows=1, client_flows=1))
    )
    it.establish()
    it.say(CLIENT + 1 + 300, BACKEND + 1, tcp.RST | tcp.ACK)
    assert it.say(5_000_000, 0, tcp.SYN).verdict == FORWARD
    it.establish(5_000_000, 9_000_000)
    assert it.states() == (FLOW_ESTABLISHED, FLOW_ESTABLISHED)


@each_executor
@NAT_AND_DSR
def test_a_clients_count_is_that_of_its_flows(executor: type[Executor], mode: Mode) -> None:
    """However often one of them begins anew."""
    of = service(mode, Scheduler.RR, protocol=TCP, limits=Limits(client_flows=2))
    it = conversation(executor, of)
    connect(it, mode)
    for _ in range(3):
        it.say(CLIENT + 1 + 300, BACKEND + 1, tcp.RST | tcp.ACK)
        assert goes_on(it)
    assert it.run(frame(tcp.SYN, 5000)).verdict == FORWARD
    assert it.run(frame(tcp.SYN, 5001)).verdict == DROP_CLIENT_FLOWS


@each_executor
@EACH_RATE
def test_what_is_no_new_connection_takes_nothing(executor: type[Executor], limits: Limits) -> None:
    it = conversation(executor, service(Mode.NAT, Scheduler.RR, protocol=TCP, limits=limits))
    it.establish()
    it.say(CLIENT + 1 + 300, BACKEND + 1, tcp.RST)
    before = levels(it.tables)
    assert it.run(frame(tcp.SYN, ttl=1)).verdict == DROP_TTL
    assert levels(it.tables) == before


@each_executor
@EACH_RATE
def test_one_that_is_too_long_is_asked_once(executor: type[Executor], limits: Limits) -> None:
    """Two executors look at it: with its data (RFC 7413) it does not fit into the tunnel."""
    of = service(Mode.DSR_IPIP, Scheduler.RR, protocol=TCP, limits=limits)
    balancer = executor(make_tables([of], arms=2, new=executor.new))
    for flags in (tcp.SYN, tcp.ACK, tcp.RST):
        assert balancer.run(frame(flags), 0, 0).verdict == FORWARD
    before = levels(balancer.tables)
    assert balancer.run(frame(tcp.SYN, body=bytes(1450)), 0, 0).verdict == FRAGMENTED
    taken = [now - was for was, now in zip(before, levels(balancer.tables), strict=True)]
    assert taken == [1000 * bool(limits.new_per_s), 1000 * bool(limits.client_new_per_s)]


@each_executor
def test_a_port_rests_before_another_client_has_it(executor: type[Executor]) -> None:
    """One port, and a client that begins anew at the other backend."""
    pool = (Snat(ip("10.78.0.201"), 5000, 5000),)
    of = service(Mode.FULLNAT, Scheduler.RR, protocol=TCP, snat=pool, members=backends(2))
    it = conversation(executor, of)
    it.establish()
    it.say(CLIENT + 1, BACKEND + 1, tcp.RST)
    assert not goes_on(it)
    assert it.run(frame(tcp.SYN, 5000)).verdict == DROP_SNAT_EXHAUSTED


@each_executor
@NAT
def test_where_no_backend_is_left_flows_stay(executor: type[Executor], mode: Mode) -> None:
    """The check may be wrong."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=UDP))
    down = {backend.number for backend in it.tables.policy.backends if backend}
    it.tables.install(done(without(it.tables.policy, down, SEED)))
    assert goes_on(it)


@each_executor
def test_a_syn_that_would_be_refused_ends_nothing(executor: type[Executor]) -> None:
    it = conversation(executor, service(Mode.NAT, Scheduler.RR, protocol=TCP))
    lose_its_backend(it)
    before = it.entry()
    it.say(7_000_000, 0, tcp.SYN, mac=b"\3\0\0\0\0\1")  # a group's MAC: nobody's
    assert it.entry().backend == before.backend


@each_executor
@pytest.mark.parametrize("mode", [Mode.NAT, Mode.DSR_L2])
def test_who_may_open_no_flow_any_more_opens_none_in_an_old_one(executor: type[Executor], mode: Mode) -> None:
    of = service(mode, Scheduler.RR, protocol=TCP)
    it = conversation(executor, of)
    if mode.is_nat:
        it.establish()
    it.say(CLIENT + 1 + 300, BACKEND + 1)
    it.say(CLIENT + 1 + 300, BACKEND + 1, tcp.RST | tcp.ACK)
    denied = replace(of, acl=Acl(deny=((it.of.src, 32),)))
    where = {each.address: (number, 1) for number, each in enumerate(of.backends, start=1)}
    it.tables.install(compile_policy([denied], where, SEED, previous=it.tables.policy))
    assert it.say(CLIENT + 301, 0).verdict == FORWARD
    assert it.say(5_000_000, 0, tcp.SYN).verdict == DROP_ACL
