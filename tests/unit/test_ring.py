"""Schedulers: what the paper promises of Maglev, and exact turns for the rest."""

from __future__ import annotations

import itertools
from collections import Counter
from hashlib import blake2b

import pytest

from l4raw.core.flows import flow_key
from l4raw.core.model import Backend, Scheduler
from l4raw.core.ring import build, maglev
from l4raw.wire.abi import MAGLEV_SLOTS
from tests.tables import ip

SMALL = [3, 1, 1, 1, 3, 2, 2]
SMALL_WEIGHTED = [3, 2, 1, 1, 1, 2, 1]


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
        assert abs(counts[index] - MAGLEV_SLOTS * weight / sum(weights)) <= weight + 1


def test_weight_zero_takes_no_new_flow() -> None:
    for scheduler in Scheduler:
        ring = build(scheduler, numbered([1, 0, 1]), b"seed")
        assert set(ring.slots) == {1, 3}


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
    for turn in itertools.cycle([i for i, weight in enumerate(weights) for _ in range(weight)]):
        if len(expected) == size:
            break
        expected[next(slot for slot in walks[turn] if slot not in expected)] = turn + 1
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
