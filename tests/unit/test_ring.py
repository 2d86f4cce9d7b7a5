"""Schedulers: what their papers promise of maglev and hrw, exact turns, the fewest flows."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from hashlib import blake2b

import pytest

from l4raw.core.flows import flow_key
from l4raw.core.model import Backend, Scheduler
from l4raw.core.ring import Ring, build, hrw, maglev, smooth, turns
from l4raw.wire.abi import MAGLEV_SLOTS
from tests.tables import ip

SMALL = [3, 1, 1, 1, 3, 2, 2]
SMALL_WEIGHTED = [3, 1, 1, 1, 1, 2, 2]
HRW_ROWS = [3, 1, 2, 1, 1, 3, 2, 2, 2, 2, 1, 2]


def numbered(weights: list[int]) -> list[tuple[int, Backend]]:
    return [
        (i + 1, Backend(f"b{i}", ip(f"10.0.{i // 250}.{i % 250 + 1}"), weight=w))
        for i, w in enumerate(weights)
    ]


def flows(count: int) -> list[bytes]:
    return [flow_key(ip("10.1.2.3"), 1024 + i, ip("10.77.0.100"), 80, 6) for i in range(count)]


def shares(weights: list[int], seed: bytes = b"seed") -> Counter[int]:
    return Counter(maglev(numbered(weights), seed))


def test_maglev_gives_each_backend_its_even_share() -> None:
    counts = shares([1] * 10)
    assert sum(counts.values()) == MAGLEV_SLOTS
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("weights", [[1, 2], [3, 1, 1], [100, 1], [10, 20, 30, 40], [2, 2, 2]])
def test_maglev_shares_follow_the_weights(weights: list[int]) -> None:
    counts = shares(weights)
    for index, weight in enumerate(weights, start=1):
        assert abs(counts[index] - MAGLEV_SLOTS * weight / sum(weights)) <= 1


def test_weight_zero_takes_no_new_flow() -> None:
    for scheduler in Scheduler:
        ring = build(scheduler, numbered([1, 0, 1]), b"seed")
        assert set(ring.slots) == {1, 3}


WEIGHTS = {
    "alike": lambda n: [1] * n,
    "1 to 10": lambda n: [1 + 7 * i % 10 for i in range(n)],
    "1 to 100": lambda n: [1 + 37 * i % 100 for i in range(n)],
    "one of 99, else 100": lambda n: [99] + [100] * (n - 1),
    "half of 100, half of 1": lambda n: [100] * (n // 2) + [1] * (n - n // 2),
}


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("count", [3, 10, 50, 200])
def test_maglev_without_one_backend_moves_two_in_a_hundred_of_the_others_slots_at_most(
    count: int, weights: str
) -> None:
    """NSDI'16 section 5.3. The first, the last, one in the middle, the lightest and the heaviest."""
    each = WEIGHTS[weights](count)
    backends = numbered(each)
    before = maglev(backends, b"seed")
    for gone in {0, count // 2, count - 1, each.index(min(each)), each.index(max(each))}:
        after = maglev(backends[:gone] + backends[gone + 1 :], b"seed")
        others = [(a, b) for a, b in zip(before, after, strict=True) if a != gone + 1]
        assert gone + 1 not in after
        assert sum(a != b for a, b in others) <= 0.02 * len(others)


def test_losing_one_of_ten_backends_moves_few_other_flows() -> None:
    """NSDI'16 section 5.3: little disruption, where modulo moves nearly all."""
    before, after = numbered([1] * 10), numbered([1] * 10)[:-1]
    maglev_before, maglev_after = maglev(before, b"seed"), maglev(after, b"seed")
    moved = sum(a != b for a, b in zip(maglev_before, maglev_after, strict=True) if a != 10)
    assert moved / MAGLEV_SLOTS < 0.02
    tenth, ninth = (build(Scheduler.MODULO, each, b"seed") for each in (before, after))
    picks = [(tenth.pick(flow, 0), ninth.pick(flow, 0)) for flow in flows(9_000)]
    stayed = sum(a.backend == b.backend for a, b in picks if a and b and a.backend != 10)
    assert stayed / len(picks) < 0.2


def test_the_group_agrees_whatever_the_backends_are_called_and_another_seed_does_not() -> None:
    backends = numbered([1, 1, 1])
    renamed = [(i, Backend("x" + b.name, b.address)) for i, b in backends]
    assert maglev(backends, b"one") == maglev(renamed, b"one")
    same = sum(a == b for a, b in zip(maglev(backends, b"one"), maglev(backends, b"two"), strict=True))
    assert same / MAGLEV_SLOTS < 0.5


@pytest.mark.parametrize(("weights", "slots"), [([1, 1, 1], SMALL), ([2, 1, 1], SMALL_WEIGHTED)])
def test_a_small_ring_as_the_papers_section_3_4_builds_it(weights: list[int], slots: list[int]) -> None:
    """Offset and skip walk the slots; each backend in turn takes its next free one. Here, the slow way.

    The literals hold what any balancer of the group must build, whatever its version.
    """
    backends, size = numbered(weights), 7
    walks = []
    for _, backend in backends:
        identity = backend.address + backend.port.to_bytes(2, "big")
        digest = blake2b(identity, digest_size=16, key=blake2b(b"seed").digest()).digest()
        offset = int.from_bytes(digest[:8], "big") % size
        skip = int.from_bytes(digest[8:], "big") % (size - 1) + 1
        walks.append(iter([(offset + j * skip) % size for j in range(size)]))
    expected: dict[int, int] = {}
    # Turn k of weight w, that of position p of n, is at (k + (p + 1/2) / n) / w.
    phase = [Fraction(2 * position + 1, 2 * len(weights)) for position in range(len(weights))]
    due = [((turn + phase[i]) / w, i) for i, w in enumerate(weights) for turn in range(size)]
    for _, position in sorted(due)[:size]:
        expected[next(slot for slot in walks[position] if slot not in expected)] = position + 1
    assert list(maglev(backends, b"seed", size)) == [expected[slot] for slot in range(size)] == slots


def test_rr_goes_by_the_cursor() -> None:
    ring = build(Scheduler.RR, numbered([1, 1, 1]), b"seed")
    picks = [ring.pick(b"", cursor) for cursor in range(4, 8)]
    assert [pick.backend for pick in picks if pick] == [2, 3, 1, 2]


def test_a_hash_picks_the_same_slot_again_and_spreads_clients() -> None:
    for scheduler in (Scheduler.MAGLEV, Scheduler.MODULO):
        ring = build(scheduler, numbered([1] * 4), b"seed")
        first = [ring.pick(flow, 0) for flow in flows(4_000)]
        assert first == [ring.pick(flow, 1) for flow in flows(4_000)]
        counts = Counter(pick.backend for pick in first if pick)
        assert all(850 < count < 1150 for count in counts.values()), counts


def test_no_backends_no_pick() -> None:
    for scheduler in Scheduler:
        assert build(scheduler, [], b"seed").pick(b"\0" * 37, 0) is None


def nginx(weights: list[int]) -> list[int]:
    """Smooth weighted round robin as its authors describe it, one period."""
    total, current, taken = sum(weights), [0] * len(weights), []
    for _ in range(total):
        current = [has + weight for has, weight in zip(current, weights, strict=True)]
        best = max(range(len(weights)), key=lambda position: current[position])
        current[best] -= total
        taken.append(best)
    assert not any(current)
    return taken


@pytest.mark.parametrize(
    "weights", [[5, 1, 1], [1], [1, 2, 3], [3, 3, 1], [2, 7, 2, 7, 2], [1, 100], [4, 3, 2, 1, 4, 3, 2, 1]]
)
def test_wrr_is_smooth_and_exact_in_every_period(weights: list[int]) -> None:
    period = list(smooth(weights))
    assert period == nginx(weights)
    for start in range(len(period)):
        assert Counter((period * 2)[start : start + len(period)]) == dict(enumerate(weights))


def test_wrr_as_it_is_known_and_with_its_weights_reduced() -> None:
    assert list(smooth([5, 1, 1])) == [0, 0, 1, 0, 2, 0, 0]
    assert list(smooth([50, 10, 10])) == [0, 0, 1, 0, 2, 0, 0]
    assert list(smooth([7, 7, 7])) == [0, 1, 2]
    assert list(smooth([])) == []


def test_wrr_goes_by_the_cursor_and_leaves_out_weight_zero() -> None:
    ring = build(Scheduler.WRR, numbered([2, 0, 4]), b"seed")
    picks = [ring.pick(b"", cursor) for cursor in range(6)]
    assert [pick.backend for pick in picks if pick] == [3, 1, 3] * 2


def test_a_sequence_of_wrr_that_is_too_long_is_refused() -> None:
    weights = [100, 99] * 329 + [28]
    assert turns(weights) == MAGLEV_SLOTS - 38
    assert len(list(smooth([*weights, 38]))) == MAGLEV_SLOTS
    with pytest.raises(OverflowError, match="add up to 65538 turns, more than 65537"):
        build(Scheduler.WRR, numbered([*weights, 39]), b"seed")


@pytest.mark.parametrize("weights", [[1] * 10, [1, 2, 3], [100, 1], [0, 5]])
def test_hrw_shares_follow_the_weights(weights: list[int]) -> None:
    counts = Counter(hrw([each for each in numbered(weights) if each[1].weight], b"seed"))
    assert counts.total() == MAGLEV_SLOTS
    for index, weight in enumerate(weights, start=1):
        share = weight / sum(weights)
        # A row is drawn by itself: six standard deviations of a binomial distribution.
        assert abs(counts[index] - MAGLEV_SLOTS * share) <= 6 * (MAGLEV_SLOTS * share * (1 - share)) ** 0.5


def test_hrw_moves_the_rows_of_one_backend_and_no_other() -> None:
    """Thaler and Ravishankar 1998: who goes gives its rows away, evenly; nobody else's change."""
    before, lost = numbered([1] * 10), numbered([1] * 10)[:-1]
    rows, after = hrw(before, b"seed"), hrw(lost, b"seed")
    assert all(a == b for a, b in zip(rows, after, strict=True) if a != 10)
    heirs = Counter(b for a, b in zip(rows, after, strict=True) if a == 10)
    assert heirs.keys() == set(range(1, 10))
    assert max(heirs.values()) < 1.5 * min(heirs.values())


def test_hrw_moves_rows_only_to_a_backend_whose_weight_grows() -> None:
    rows, after = hrw(numbered([1, 1, 1, 1]), b"seed"), hrw(numbered([1, 1, 3, 1]), b"seed")
    moved = Counter(b for a, b in zip(rows, after, strict=True) if a != b)
    assert moved.keys() == {3}
    assert 0.2 < moved[3] / MAGLEV_SLOTS < 0.3


def test_the_group_agrees_on_hrw_whatever_the_order_and_the_names() -> None:
    """The literal holds what any balancer of the group must build, whatever its version."""
    backends = numbered([1, 2, 1])
    renamed = [(i, Backend("x" + b.name, b.address, weight=b.weight)) for i, b in reversed(backends)]
    assert list(hrw(backends, b"seed", 12)) == list(hrw(renamed, b"seed", 12)) == HRW_ROWS
    assert list(hrw(backends, b"other", 12)) != HRW_ROWS


def test_sh_goes_by_the_clients_address_alone() -> None:
    ring = build(Scheduler.SH, numbered([1] * 4), b"seed")
    assert ring.slots == maglev(numbered([1] * 4), b"seed")
    of_one = {
        ring.pick(flow_key(ip("10.1.2.3"), sport, ip(vip), dport, protocol), 0)
        for sport, vip, dport, protocol in [(1, "10.77.0.100", 80, 6), (2, "10.77.0.101", 53, 17)]
    }
    assert len(of_one) == 1
    clients = [flow_key(ip(f"10.1.{i // 250}.{i % 250}"), 7, ip("10.77.0.100"), 80, 6) for i in range(4_000)]
    counts = Counter(pick.backend for each in clients if (pick := ring.pick(each, 0)))
    assert all(850 < count < 1150 for count in counts.values()), counts
    other = build(Scheduler.SH, numbered([1] * 4), b"another seed")
    assert [ring.pick(each, 0) for each in clients[:50]] != [other.pick(each, 0) for each in clients[:50]]


def chosen(ring: Ring, flows: dict[int, int], count: int, away: tuple[int, ...] = ()) -> list[int]:
    """The backends of `count` flows more; `flows` has the current ones and is added to."""
    backends, cursor = [], 0
    for _ in range(count):
        pick = ring.pick(b"", cursor, lambda backend: (backend in away, flows[backend]))
        assert pick is not None
        cursor = ring.after(pick, cursor)
        flows[pick.backend] += 1
        backends.append(pick.backend)
    return backends


def test_lc_takes_the_fewest_flows_and_of_those_alike_the_next_in_turn() -> None:
    ring = build(Scheduler.LC, numbered([1, 1, 5, 0]), b"seed")
    assert chosen(ring, {1: 2, 2: 0, 3: 1}, 7) == [2, 3, 2, 3, 1, 2, 3]


def test_wlc_takes_the_fewest_flows_for_the_weight() -> None:
    ring = build(Scheduler.WLC, numbered([1, 2, 3]), b"seed")
    flows = {1: 0, 2: 0, 3: 0}
    assert chosen(ring, flows, 6) == [1, 2, 3, 3, 2, 3]
    chosen(ring, flows, 594)
    assert flows == {1: 100, 2: 200, 3: 300}
    flows[2] = 150
    assert chosen(ring, flows, 50) == [2] * 50


def test_who_cannot_be_reached_does_not_get_every_new_flow_of_lc() -> None:
    ring = build(Scheduler.LC, numbered([1, 1, 1]), b"seed")
    assert chosen(ring, {1: 9, 2: 0, 3: 8}, 4, away=(2,)) == [3, 1, 3, 1]
    assert chosen(ring, {1: 9, 2: 0, 3: 8}, 2, away=(1, 2, 3)) == [2, 2]
