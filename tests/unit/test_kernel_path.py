"""When the kernel path may forward, by what kernel, test frames and counters say; no interface is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from l4raw.control.egress import Counts, Outcome, Trial
from l4raw.control.errors import L4Error
from l4raw.control.kernel_path import AGAIN_S, LEAST, MOST_S, Forwards, Judge, KernelPath
from l4raw.control.netlink import Interface
from l4raw.wire.abi import FORWARD, REPLY, VERDICT_COUNT

SENT, DROPPED = Trial(Outcome.SENT), Trial(Outcome.DROPPED, "test frames have vanished")
UNKNOWN = Trial(Outcome.UNKNOWN, "its driver has not counted the test frames")
NO_FAMILY = "this kernel does not tell"


class World:
    """Interfaces, an engine and a kernel, as far as they are asked: the three doubles of a judge."""

    def __init__(self, arms: int = 1, tested: Trial = SENT, family: bool = True) -> None:
        self.interfaces = [Interface(f"eth{i}", i, bytes(6), True, 1500, ()) for i in range(arms)]
        self.outcome, self.tested, self.tests = tested, [tested] * arms, 0
        self.sends: bool | L4Error = True
        self.verdicts = [0] * VERDICT_COUNT
        self.taken, self.refused, self.in_flight = [0] * arms, [0] * arms, 0
        self.told: list[bool] = []
        self.tables = self
        self.judge = Judge(self, self, self if family else None, NO_FAMILY)  # type: ignore[arg-type]

    def test(self, number: int) -> Trial:
        self.tests += 1
        return self.outcome

    def counts(self, number: int) -> Counts:
        return Counts(self.taken[number], self.refused[number], True)

    def sends_redirected(self, index: int) -> bool:
        if isinstance(self.sends, L4Error):
            raise self.sends
        return self.sends

    def verdicts_by_kernel(self) -> list[int]:
        return self.verdicts

    def forward_in_kernel(self, allowed: bool) -> None:
        self.told.append(allowed)

    def redirect(self, frames: int, taken: int = 0, refused: int = 0, arm: int = 0, verdict: int = 0) -> None:
        """The kernel path has sent so many, of which the driver has seen these."""
        self.verdicts[verdict] += frames
        self.taken[arm] += taken
        self.refused[arm] += refused

    def look(self, now: float) -> Forwards | None:
        change = self.judge.look(now, self.pause)
        assert change is None or change.forwards == self.told[-1]
        return change

    def pause(self, seconds: float) -> None:
        self.taken[0] += self.in_flight
        self.in_flight = 0


def said(change: Forwards | None) -> str:
    assert change is not None and not change.forwards
    return "; ".join(change.reasons)


def test_what_the_kernel_says_and_a_test_frame_must_agree() -> None:
    world = World()
    assert world.look(0) == (True, ())
    assert world.look(1) is None
    world.sends = False
    assert "eth0 does not send what XDP redirects to it" in said(world.look(1.5))
    world.sends, world.outcome = True, DROPPED
    assert "eth0 drops what XDP redirects to it: test frames have vanished" in said(world.look(2))
    world.outcome = SENT
    assert world.look(2 + AGAIN_S - 0.1) is None and world.tests == 1
    assert world.look(2 + AGAIN_S) == (True, ()) and world.tests == 2


def test_an_interface_is_tested_at_once_when_the_kernel_says_that_it_sends() -> None:
    world = World(tested=DROPPED)
    world.sends = False
    said(world.look(0))
    world.sends, world.outcome = True, SENT
    assert world.look(0.001) == (True, ()) and world.tests == 1


@pytest.mark.parametrize("family", [True, False])
def test_who_cannot_be_tested_forwards_only_where_the_kernel_says_so(family: bool) -> None:
    world = World(tested=UNKNOWN, family=family)
    change = world.look(0)
    if family:
        assert change == (True, ())
    else:
        assert said(change) == (
            "whether eth0 sends what XDP redirects to it cannot be told: its driver has not counted the test"
            f" frames; {NO_FAMILY}"
        )


def test_without_the_family_a_test_frame_is_what_lets_it_forward() -> None:
    world = World(arms=2, family=False)
    assert world.look(0) == (True, ())
    world = World(tested=DROPPED, family=False)
    assert "ethtool -K PEER gro on" in said(world.look(0))
    assert world.tests == 0, "it was tested just before"
    world.outcome = SENT
    assert world.look(AGAIN_S - 0.1) is None
    assert world.look(AGAIN_S) == (True, ())


def test_it_is_held_back_while_the_kernel_cannot_be_asked() -> None:
    world = World()
    world.sends = L4Error("L4R-306", what="asking for XDP features: no buffer space")
    assert said(world.look(0)) == "asking for XDP features: no buffer space"
    world.sends = True
    assert world.look(1) == (True, ())


def lose(world: World, now: float) -> Forwards | None:
    """Look, redirect frames that vanish, and look again."""
    assert world.look(now) is None
    world.redirect(1000)
    return world.look(now + 1)


@pytest.mark.parametrize("family", [True, False])
def test_frames_that_never_reach_the_driver_end_it(family: bool) -> None:
    world = World(family=family)
    assert world.look(0) == (True, ())
    assert "eth0 drops what XDP redirects to it: 0 of 1,000 frames reached" in said(lose(world, 1))


@pytest.mark.parametrize(
    ("frames", "taken", "refused"),
    [(1000, 1000, 0), (1000, 501, 0), (1000, 0, 1000), (1000, 400, 600), (LEAST - 1, 0, 0), (0, 0, 0)],
    ids=["all", "most", "no room", "little room", "too few", "none"],
)
def test_what_reached_the_driver_is_not_lost(frames: int, taken: int, refused: int) -> None:
    world = World()
    world.look(0)
    world.look(1)
    world.redirect(frames, taken, refused)
    assert world.look(2) is None


def test_a_few_frames_a_second_are_enough_in_the_end() -> None:
    world = World()
    for now in range(LEAST):
        change = world.look(now)
        assert (change is None) == (now > 0)
        world.redirect(1)
    world.redirect(1)
    assert f"0 of {LEAST} frames" in said(world.look(LEAST))


def test_frames_on_their_way_are_waited_for() -> None:
    world = World()
    world.look(0)
    world.look(1)
    world.redirect(64)
    world.in_flight = 64
    assert world.look(2) is None


@pytest.mark.parametrize(("verdict", "arm"), [(FORWARD, 1), (REPLY, 0)])
def test_forwarded_frames_leave_by_the_last_arm_and_replies_by_the_first(verdict: int, arm: int) -> None:
    world = World(arms=2)
    world.look(0)
    world.look(1)
    world.redirect(100, arm=1 - arm, taken=100, verdict=verdict)
    assert said(world.look(2)).startswith(f"eth{arm} drops")


def test_with_one_arm_both_leave_by_it() -> None:
    world = World()
    world.look(0)
    world.look(1)
    world.redirect(100, taken=100, verdict=FORWARD)
    world.redirect(300, verdict=REPLY)
    assert "100 of 400 frames" in said(world.look(2))


def test_one_that_fails_again_and_again_is_tried_less_and_less() -> None:
    world, now, held = World(), 0.0, []
    world.look(now)
    for _ in range(9):
        said(lose(world, now))
        began = now = now + 1
        while world.look(now) is None:
            now += 1
        held.append(now - began)
    assert held == [10, 20, 40, 80, 160, 320, 640, 640, 640]
    assert max(held) == MOST_S
    now += MOST_S + 1
    said(lose(world, now))
    assert world.look(now + 1 + AGAIN_S - 1) is None
    assert world.look(now + 1 + AGAIN_S) == (True, ())


def test_what_the_driver_counted_meanwhile_is_not_ours_of_before() -> None:
    """While it did not forward, frames went over AF_XDP, and a driver with one counter has counted these."""
    world = World()
    world.look(0)
    world.look(1)
    world.sends = L4Error("L4R-306", what="asking for XDP features: no buffer space")
    said(world.look(2))
    world.taken[0] += 10_000
    world.sends = True
    assert world.look(3) == (True, ())
    assert "0 of 1,000 frames" in said(lose(world, 4))


def test_what_ends_the_thread_ends_the_balancer_and_the_kernel_path() -> None:
    world = World()

    def broken(index: int) -> bool:
        raise RuntimeError("a mistake")

    setattr(world, "sends_redirected", broken)  # noqa: B010
    features: Callable[[], Any] = lambda: Closing(world)  # noqa: E731
    path = KernelPath(world, world, lambda change: None, features)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="a mistake"):
        path.start()
    path.close()
    path.close()
    assert world.told == [False]


class Closing:
    """Features that can be closed, and tell no news."""

    news = None

    def __init__(self, world: World) -> None:
        self.sends_redirected, self.close = world.sends_redirected, lambda: None
