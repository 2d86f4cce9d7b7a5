"""Rings without those that are down: nobody else's slots move, and who returns gets its own back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator
from dataclasses import replace
from typing import Any

import pytest

from l4raw.core.flows import flow_key
from l4raw.core.model import Mode, Scheduler
from l4raw.core.outage import without
from l4raw.core.ring import Ring
from l4raw.core.tables import Policy, ServiceEntry
from l4raw.wire.abi import MAGLEV_SLOTS
from tests.tables import SEED, VIP, backends, done, ip, make_tables, service, weighted

CONSISTENT = [Scheduler.MAGLEV, Scheduler.SH, Scheduler.HRW]


def policy(scheduler: Scheduler, *weights: int) -> Policy:
    return make_tables([service(scheduler=scheduler, members=weighted(*weights))]).policy


def the_service(of: Policy) -> ServiceEntry:
    (entry,) = of.services.values()
    assert of.by_number[entry.number] is entry
    return entry


def ring(of: Policy, down: Collection[int] = ()) -> Ring:
    return the_service(done(without(of, down, SEED))).ring


@pytest.mark.parametrize("scheduler", CONSISTENT)
@pytest.mark.parametrize("count", [3, 10, 50])
def test_no_slot_moves_but_those_of_who_is_down(scheduler: Scheduler, count: int) -> None:
    whole = policy(scheduler, *(1 + i % 3 for i in range(count)))
    before, after = the_service(whole).ring.slots, ring(whole, [2]).slots
    assert len(after) == MAGLEV_SLOTS
    assert 2 not in after
    assert all(a == b for a, b in zip(before, after, strict=True) if a != 2)


def test_of_200_by_weight() -> None:
    """hrw takes seconds to build so many rows."""
    whole = policy(Scheduler.MAGLEV, *(1 + 37 * i % 100 for i in range(200)))
    before, after = the_service(whole).ring.slots, ring(whole, [100]).slots
    assert all(a == b for a, b in zip(before, after, strict=True) if a != 100)
    assert 100 not in after


@pytest.mark.parametrize("scheduler", CONSISTENT)
def test_the_heirs_share_by_weight(scheduler: Scheduler) -> None:
    weights = (3, 1, 2, 4)
    slots = Counter(ring(policy(scheduler, *weights), [1]).slots)
    for number, weight in enumerate(weights[1:], start=2):
        share = MAGLEV_SLOTS * weight / 7
        assert abs(slots[number] - share) < 6 * share**0.5


@pytest.mark.parametrize("scheduler", CONSISTENT)
def test_who_is_down_counts_and_not_in_which_order_they_went(scheduler: Scheduler) -> None:
    """So a backend that returns moves no slots but those that it gets."""
    whole = policy(scheduler, 1, 1, 1, 1, 1)
    two, one = ring(whole, [2, 4]).slots, ring(whole, [4]).slots
    assert ring(whole, [4, 2]).slots == two
    assert all(b == 2 for a, b in zip(two, one, strict=True) if a != b)
    assert ring(whole).slots == the_service(whole).ring.slots


def test_a_group_agrees_by_its_seed() -> None:
    whole = policy(Scheduler.MAGLEV, 1, 1, 1)
    other = the_service(done(without(whole, [1], b"another"))).ring.slots
    assert other != ring(whole, [1]).slots
    assert list(ring(whole, [1]).slots[:12]) == FIRST, "what any version must build"


FIRST = [3, 2, 2, 2, 2, 2, 3, 3, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("scheduler", "before", "after"),
    [
        (Scheduler.RR, [1, 2, 3], [1, 3]),
        (Scheduler.MODULO, [1, 2, 3], [1, 3]),
        (Scheduler.WRR, [3, 1, 2, 3], [3, 1, 3]),
        (Scheduler.LC, [1, 2, 3], [1, 3]),
        (Scheduler.WLC, [1, 2, 3], [1, 3]),
    ],
)
def test_the_others_leave_it_out(scheduler: Scheduler, before: list[int], after: list[int]) -> None:
    weights = (1, 1, 2) if scheduler in (Scheduler.WRR, Scheduler.WLC) else (1, 1, 1)
    whole = policy(scheduler, *weights)
    assert list(the_service(whole).ring.slots) == before
    left = ring(whole, [2])
    assert list(left.slots) == after
    assert left.weights == {Scheduler.LC: (1, 1), Scheduler.WLC: (1, 2)}.get(scheduler, ())


@pytest.mark.parametrize("scheduler", Scheduler)
def test_all_down_is_a_ring_that_picks_nobody(scheduler: Scheduler) -> None:
    empty = ring(policy(scheduler, 1, 1), [1, 2])
    key = flow_key(ip("10.77.0.1"), 1024, VIP, 80, 6)
    assert empty.pick(key, 0) is None


def test_other_services_and_all_numbers_stay() -> None:
    tables = make_tables([service(), service(Mode.NAT, name="other", port=81, members=backends(2))])
    whole = tables.policy
    less = done(without(whole, [4], SEED))
    assert less.backends is whole.backends
    assert less.services[VIP, 80, 6] is whole.services[VIP, 80, 6]
    assert list(less.services[VIP, 81, 6].ring.slots) == [5]
    assert less == replace(whole, services=less.services, by_number=less.by_number)


def test_it_yields_often_enough_to_let_others_run() -> None:
    steps: Generator[None, None, Any] = without(policy(Scheduler.MAGLEV, 1, 1, 1), [1], SEED)
    assert sum(1 for _ in steps) > 60
