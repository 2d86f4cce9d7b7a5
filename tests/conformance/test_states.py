"""The states of a NAT flow, of which both sides are seen, and what nobody can make of them who guesses."""

from __future__ import annotations

import pytest

from l4raw.core.entry import Entry
from l4raw.core.flows import flow_key
from l4raw.core.model import Mode, Scheduler
from l4raw.core.tables import Tables
from l4raw.wire import tcp
from l4raw.wire.abi import (
    END_WINDOW,
    FLOW_CLOSING,
    FLOW_ESTABLISHED,
    FLOW_UDP,
    FLOW_UDP_NEW,
    FORWARD,
    REPLY,
    STREAM_MS,
)
from l4raw.wire.ipv4 import TCP, UDP
from tests.crafted import Tuple5, build, tuple_of
from tests.executors import Executor, Outcome
from tests.kernel import EXECUTORS
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, ip, make_tables, service

pytestmark = pytest.mark.native
each_executor = pytest.mark.parametrize("executor", EXECUTORS, ids=lambda e: e.name)
each_mode = pytest.mark.parametrize("mode", [Mode.NAT, Mode.FULLNAT])

MACS = OUR_MACS[0], CLIENT_MAC
CLIENT, BACKEND = 0x1A2B_3C4D, 0xD00D_F00D
"""Initial sequence numbers."""


class Conversation:
    """A client's flow through the balancer, with both ends."""

    def __init__(self, balancer: Executor, protocol: int = TCP, source: bytes = ip("10.77.0.1")) -> None:
        self._balancer = balancer
        self.of = Tuple5(source, 4000, VIP, 80, protocol)
        self.opened = self.say(CLIENT, 0, tcp.SYN)
        assert self.opened.verdict == FORWARD
        read = tuple_of(self.opened.frame)
        assert read is not None
        self.at_backend = read

    def say(self, seq: int, ack: int, flags: int = tcp.ACK, mac: bytes = CLIENT_MAC) -> Outcome:
        """The client sends; or somebody in its name, with this MAC address."""
        return self.run(bytes(build(self.of, (OUR_MACS[0], mac), flags, seq=seq, ack=ack)))

    def run(self, frame: bytes) -> Outcome:
        """A frame from the clients' side."""
        return self._balancer.run(frame, 0, 0)

    def answer(self, seq: int, ack: int, flags: int = tcp.ACK) -> Outcome:
        """The backend answers."""
        macs = OUR_MACS[1], self.opened.frame[:6]
        return self._balancer.run(
            bytes(build(self.at_backend.flipped(), macs, flags, seq=seq, ack=ack)), 1, 0
        )

    def establish(self, client: int = CLIENT, backend: int = BACKEND) -> None:
        """What follows the SYN."""
        assert self.answer(backend, client + 1, tcp.SYN | tcp.ACK).verdict == REPLY
        assert self.say(client + 1, backend + 1).verdict == FORWARD
        assert self.answer(backend + 1, client + 1).verdict == REPLY

    @property
    def tables(self) -> Tables:
        return self._balancer.tables

    def another(self, source: int) -> Conversation:
        """Of another client, of the same service."""
        return Conversation(self._balancer, self.of.protocol, source.to_bytes(4))

    def clock(self, ms: int) -> None:
        """Let so much time pass."""
        self.tables.now = self.tables.now + ms & 0xFFFF_FFFF

    def crowded(self) -> Conversation:
        """That of a client who comes when others have taken half of the table, over UDP."""
        assert self.answer(0, 0).verdict == REPLY
        number = 0x0E00_0000
        while self.tables.flows.is_half_empty:
            assert self.another(number).answer(0, 0).verdict == REPLY
            number += 1
        return self.another(number)

    def places(self) -> int:
        """Half-open flows."""
        return self.tables.flows.half_open

    def entry(self) -> Entry:
        """Of the client's direction."""
        flows = self.tables.flows
        return flows.read(flows.find(flow_key(*self.of)))

    def states(self) -> tuple[int, int]:
        """Of the client's direction, and of the backend's."""
        flows = self._balancer.tables.flows
        found = [flows.read(flows.find(flow_key(*each))) for each in (self.of, self.at_backend.flipped())]
        return found[0].state, found[1].state


def conversation(executor: type[Executor], mode: Mode, protocol: int = TCP) -> Conversation:
    services = [service(mode, Scheduler.RR, protocol=protocol)]
    return Conversation(executor(make_tables(services, arms=2, new=executor.new)), protocol)


@each_executor
@each_mode
def test_a_thousand_resets_and_a_syn_move_no_connection(executor: type[Executor], mode: Mode) -> None:
    """Who knows addresses and ports, and guesses a number in each window, ends one direction at most."""
    it = conversation(executor, mode)
    it.establish()
    for number in range(0, 1 << 32, END_WINDOW):
        assert it.say(number, 0, tcp.RST, mac=b"\2evil!").verdict == FORWARD
    assert it.states() == (FLOW_CLOSING, FLOW_ESTABLISHED)
    forged = it.say(12345, 0, tcp.SYN, mac=b"\2evil!")
    after = it.say(CLIENT + 1, BACKEND + 1)
    for outcome in (forged, after):
        assert outcome.verdict == FORWARD
        assert tuple_of(outcome.frame) == it.at_backend
    assert it.answer(BACKEND + 1, CLIENT + 1).frame[:6] == CLIENT_MAC


@each_executor
@each_mode
@pytest.mark.parametrize("off", [0, 1, -1])
def test_a_reset_ends_both_directions_if_its_number_is_what_the_other_side_has_acknowledged(
    executor: type[Executor], mode: Mode, off: int
) -> None:
    it = conversation(executor, mode)
    it.establish()
    assert it.say(CLIENT + 1 + off, 0, tcp.RST).verdict == FORWARD
    expected = {
        0: (FLOW_CLOSING, FLOW_CLOSING),
        1: (FLOW_CLOSING, FLOW_ESTABLISHED),
        -1: (FLOW_ESTABLISHED, FLOW_ESTABLISHED),
    }
    assert it.states() == expected[off]
    again = it.say(CLIENT, 0, tcp.SYN)
    assert (tuple_of(again.frame) == it.at_backend) is (off != 0)


@each_executor
@each_mode
def test_what_a_backend_takes_in_the_place_of_a_half_closed_connection_is_an_open_one(
    executor: type[Executor], mode: Mode
) -> None:
    """It lost its connections; the client closes its end, and its next connection has the same port."""
    it = conversation(executor, mode)
    it.establish()
    it.say(CLIENT + 1, BACKEND + 1, tcp.FIN | tcp.ACK)
    assert it.states() == (FLOW_CLOSING, FLOW_ESTABLISHED)
    assert tuple_of(it.say(5_000_000, 0, tcp.SYN).frame) == it.at_backend
    assert it.states() == (FLOW_CLOSING, FLOW_ESTABLISHED)
    it.establish(5_000_000, 9_000_000)
    assert it.states() == (FLOW_ESTABLISHED, FLOW_ESTABLISHED)
    it.answer(9_000_001, 5_000_001, tcp.FIN | tcp.ACK)
    assert it.states() == (FLOW_ESTABLISHED, FLOW_CLOSING)


@each_executor
@each_mode
def test_in_a_table_with_room_an_answer_suffices(executor: type[Executor], mode: Mode) -> None:
    """As many clients as half of it has room for, who seldom speak: each keeps its backend, and its port."""
    it = conversation(executor, mode, UDP)
    clients = []
    for number in range(it.tables.flows.capacity // 4 - 1):
        clients.append(it.another(0x0B00_0000 + number))
        assert clients[-1].answer(0, 0).verdict == REPLY
    it.clock(5_000)
    for client in clients:
        assert client.answer(0, 0).verdict == REPLY
        assert tuple_of(client.say(0, 0).frame) == client.at_backend
        assert client.states() == (FLOW_UDP, FLOW_UDP)


@each_executor
@each_mode
def test_questions_and_answers_prove_nothing_until_they_last(executor: type[Executor], mode: Mode) -> None:
    it = conversation(executor, mode, UDP).crowded()
    it.clock(-10)  # 2^32 is nothing special
    for _ in range(3):
        it.say(0, 0)
        assert it.states() == (FLOW_UDP_NEW, FLOW_UDP_NEW)
    for _ in range(3):
        it.answer(0, 0)
        it.say(0, 0)
        assert it.states() == (FLOW_UDP_NEW, FLOW_UDP)
    it.clock(STREAM_MS - 1)
    it.say(0, 0)
    it.answer(0, 0)
    assert it.states() == (FLOW_UDP_NEW, FLOW_UDP)
    it.clock(1)
    it.say(0, 0)
    assert it.states() == (FLOW_UDP, FLOW_UDP)


@each_executor
@each_mode
def test_however_often_a_question_is_answered_it_is_one(executor: type[Executor], mode: Mode) -> None:
    """Many servers say it again, when nobody confirms it; nobody does if the question was invented."""
    it = conversation(executor, mode, UDP).crowded()
    before = it.places()
    for _ in range(4):
        it.answer(0, 0)
        assert it.states() == (FLOW_UDP_NEW, FLOW_UDP)
        it.clock(STREAM_MS)
    assert it.places() == before
    it.say(0, 0)
    assert it.states() == (FLOW_UDP, FLOW_UDP)
    assert it.places() == before - 1


@each_executor
@each_mode
def test_a_clock_that_is_read_a_tick_earlier_makes_no_stream(executor: type[Executor], mode: Mode) -> None:
    it = conversation(executor, mode, UDP).crowded()
    it.answer(0, 0)
    it.clock(-10)
    it.say(0, 0)
    assert it.states() == (FLOW_UDP_NEW, FLOW_UDP)


@each_executor
@each_mode
@pytest.mark.parametrize("crowded", [True, False])
def test_a_stream_outlives_any_number_of_questions(
    executor: type[Executor], mode: Mode, crowded: bool
) -> None:
    """Under fullnat another client would get what is left of it, at its port."""
    it = conversation(executor, mode, UDP)
    if crowded:
        it = it.crowded()
    it.answer(0, 0)
    if crowded:
        it.clock(STREAM_MS)
        it.say(0, 0)
    for number in range(3 * it.tables.flows.capacity):
        asked = it.another(0x0B00_0000 + number)
        assert asked.opened.verdict == FORWARD
        assert asked.answer(0, 0).verdict == REPLY
    assert it.answer(0, 0).frame[:6] == CLIENT_MAC
    assert it.states() == (FLOW_UDP, FLOW_UDP)


@each_executor
@pytest.mark.parametrize(("asked", "answered"), [(1, 1), (2, 1), (1, 2)])
def test_invented_questions_that_are_answered_keep_nobody_out(
    executor: type[Executor], asked: int, answered: int
) -> None:
    services = [service(Mode.NAT, Scheduler.RR, protocol=protocol) for protocol in (UDP, TCP)]
    balancer = executor(make_tables(services, arms=2, new=executor.new))
    tables = balancer.tables
    known, established = Conversation(balancer), 1
    known.establish()
    for number in range(2 * tables.flows.capacity):
        if number % 50 == 0:
            Conversation(balancer, TCP, source=(0x0A4E_0000 + number).to_bytes(4)).establish()
            established += 1
        invented = Conversation(balancer, UDP, source=(0x0B00_0000 + number).to_bytes(4))
        assert invented.answer(0, 0).verdict == REPLY
        for _ in range(1, asked):
            assert invented.say(0, 0).verdict == FORWARD
        for _ in range(1, answered):
            invented.clock(STREAM_MS)
            assert invented.answer(0, 0).verdict == REPLY
    assert tables.flows.used <= tables.flows.capacity // 2 + 2 * tables.flows.share.limit + 2 * established
    for number in range(20):
        Conversation(balancer, TCP, source=(0x0A4D_0100 + number).to_bytes(4)).establish()
    assert known.states() == (FLOW_ESTABLISHED, FLOW_ESTABLISHED)


@each_executor
@each_mode
def test_no_answer_to_a_syn_reopens_what_nobody_has_closed(executor: type[Executor], mode: Mode) -> None:
    it = conversation(executor, mode)
    it.establish()
    it.answer(BACKEND, 4711, tcp.SYN | tcp.ACK)
    it.say(4711, 0, tcp.RST)
    assert it.states() == (FLOW_ESTABLISHED, FLOW_ESTABLISHED)
