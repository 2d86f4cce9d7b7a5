"""The thread that checks: on answers of a test's own, and on real ports of this host."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from l4raw.control import health as module
from l4raw.control.checks import Check, Target
from l4raw.control.health import Change, Health
from l4raw.control.probes import failed, handshake
from l4raw.control.standing import Result, State
from l4raw.core.model import Mode, Scheduler
from l4raw.core.tables import Policy
from tests.tables import SEED, backends, ip, make_tables, service

DEADLINE = 20.0
FAST = Check(interval=100, timeout=50, rise=2, fall=2)


class Answers:
    """A probe, for all targets, whose answers are set by the test. As a VipProbe it is closed."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.asked = 0
        self.now = self.most = 0
        self.closed = False
        self.wait: Callable[[], Any] = lambda: None

    async def __call__(self, target: Target) -> Result:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            if waiting := self.wait():
                await waiting
            self.asked += 1
            return Result(False, "no") if target.backend in self.bad else Result(True)
        finally:
            self.now -= 1

    def close(self) -> None:
        self.closed = True


def policy(count: int = 3) -> Policy:
    return make_tables([service(Mode.DSR_L2, Scheduler.RR, members=backends(count))]).policy


@contextmanager
def running(answers: Answers, count: int = 3, check: Check = FAST) -> Iterator[Health]:
    health = Health(policy(count), {"web": check}, SEED, answers)  # type: ignore[arg-type]
    health.start()
    try:
        yield health
        health.check()
    finally:
        health.close()


def until(condition: Callable[[], Any]) -> Any:
    limit = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < limit
        time.sleep(0.002)
    return found


def slots(change: Change) -> list[int]:
    (entry,) = change.policy.services.values()
    return list(entry.ring.slots)


def test_who_goes_down_is_out_of_the_ring_and_who_comes_back_is_in_it() -> None:
    answers = Answers()
    with running(answers) as health:
        until(lambda: all(each.state is State.UP for each in health.standings))
        assert health.take() is None, "nobody takes less than before"
        answers.bad = {"b2"}
        change = until(health.take)
        assert slots(change) == [1, 3]
        assert [str(event) for event in change.events] == ["backend web/b2 down: no (2 of 2)"]
        answers.bad = {"b1", "b2", "b3"}
        until(lambda: (found := health.take()) and slots(found) == [])
        answers.bad = set()
        until(lambda: (found := health.take()) and slots(found) == [1, 2, 3])
    assert answers.closed


def test_silence_is_a_failure_after_the_timeout() -> None:
    answers = Answers()
    answers.wait = lambda: asyncio.sleep(60)
    with running(answers, count=1) as health:
        change = until(health.take)
    assert str(change.events[0]) == "backend web/b1 down: no answer within 0.05 s (1 of 1)"
    assert answers.now == 0, "what was under way is ended"


def test_so_many_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 5)
    answers = Answers()
    answers.wait = lambda: asyncio.sleep(0.02)
    with running(answers, count=40, check=Check(interval=100, timeout=100)):
        until(lambda: answers.asked > 80)
    assert answers.most == 5


def test_a_mistake_of_ours_ends_the_balancer_not_the_checks_alone() -> None:
    answers = Answers()

    def broken() -> None:
        raise ValueError("a mistake")

    answers.wait = broken
    with pytest.raises(ValueError, match="a mistake"), running(answers) as health:
        until(lambda: not [each for each in threading.enumerate() if each.name == "health"])
        health.check()


def test_without_anything_to_check_there_is_no_thread() -> None:
    with running(Answers(), check=Check("none")) as health:
        assert not [each for each in threading.enumerate() if each.name == "health"]
        assert health.take() is None


def target(port: int) -> Target:
    address = ip("127.0.0.1")
    return Target(1, "web", "b1", address, address, port, FAST)


def test_a_handshake_with_a_port_that_listens_and_one_that_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert asyncio.run(handshake(target(port))) == Result(True)
        connection = server.accept()[0]
        with connection:
            connection.settimeout(DEADLINE)
            assert connection.recv(1) == b"", "closed, not reset"
    with pytest.raises(ConnectionRefusedError) as caught:
        asyncio.run(handshake(target(port)))
    assert failed(caught.value) == Result(False, "connection refused")


def test_errors_of_this_host_say_nothing_of_a_backend() -> None:
    assert failed(OSError(errno.EMFILE, "")) == Result(None, "too many open files")
    assert failed(OSError(errno.EHOSTUNREACH, "")) == Result(False, "no route to host")
