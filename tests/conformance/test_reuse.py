"""A client that begins anew on a known flow: which backend it gets, and what it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l4raw.core.model import Acl, Limits, Mode, Scheduler, Service
from l4raw.core.outage import without
from l4raw.core.tables import compile_policy
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_ACL, DROP_CLIENT_RATE, DROP_SERVICE_RATE, FLOW_ESTABLISHED, FORWARD, STREAM_MS
from l4raw.wire.ipv4 import TCP, UDP
from tests.conformance.test_states import BACKEND, CLIENT, Conversation
from tests.crafted import tuple_of
from tests.executors import EXECUTORS, Executor
from tests.tables import SEED, done, make_tables, service

pytestmark = pytest.mark.native
each_executor = pytest.mark.parametrize("executor", EXECUTORS, ids=lambda e: e.name)
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


@each_executor
@NAT_AND_DSR
def test_who_was_never_answered_leaves_a_backend_that_is_down(executor: type[Executor], mode: Mode) -> None:
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP))
    assert goes_on(it)
    lose_its_backend(it)
    assert not goes_on(it)


@each_executor
@NAT_AND_DSR
def test_who_is_connected_stays(executor: type[Executor], mode: Mode) -> None:
    """A SYN can be anyone's."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP))
    if mode.is_nat:
        it.establish()
    else:
        it.say(CLIENT + 1, BACKEND + 1)
    lose_its_backend(it)
    it.clock(60_000)
    assert goes_on(it)


@each_executor
@pytest.mark.parametrize("mode", [Mode.NAT, Mode.FULLNAT])
@pytest.mark.parametrize("how", [tcp.FIN | tcp.ACK, tcp.RST])
def test_who_has_closed_its_end_waits_for_no_backend_that_is_silent(
    executor: type[Executor], mode: Mode, how: int
) -> None:
    """It is down: it will not close its own, nor say that a number is wrong."""
    it = conversation(executor, service(mode, Scheduler.RR, protocol=TCP))
    it.establish()
    it.say(CLIENT + 1 + 500, BACKEND + 1, how)
    assert goes_on(it)
    lose_its_backend(it)
    it.clock(STREAM_MS - 1)
    assert goes_on(it), "it may still be sending"
    it.clock(1)
    assert not goes_on(it)


@each_executor
@pytest.mark.parametrize("mode", [Mode.NAT, Mode.FULLNAT])
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
