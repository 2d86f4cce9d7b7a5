"""Limits of flows: who is refused, when again not, and what a flood of addresses does."""

from __future__ import annotations

from l4raw.core.hashing import hash_key
from l4raw.core.limits import Counts, private
from l4raw.core.model import Limits
from l4raw.wire.abi import (
    CLIENT_PLACES,
    DROP_CLIENT_FLOWS,
    DROP_CLIENT_RATE,
    DROP_SERVICE_FLOWS,
    DROP_SERVICE_RATE,
    FORWARD,
)
from tests.tables import ip

KEY = hash_key(b"limits")
A, B = ip("10.0.0.1"), ip("10.0.0.2")
START = 0xFFFF_FF00
"""Just before the clock begins again."""


def taken(counts: Counts, limits: Limits, address: bytes, now: int, times: int) -> int:
    """How many of so many new flows pass."""
    return sum(counts.take(1, limits, address, now & 0xFFFF_FFFF) == FORWARD for _ in range(times))


def test_a_rate_lets_so_many_in_at_once_and_then_one_after_the_other() -> None:
    counts, limits = private(KEY), Limits(new_per_s=10)
    assert taken(counts, limits, A, START, 25) == 10
    assert counts.take(1, limits, B, START) == DROP_SERVICE_RATE
    assert [taken(counts, limits, A, START + ms, 5) for ms in (99, 100, 199, 250, 300)] == [0, 1, 0, 1, 1]
    assert taken(counts, limits, A, START + 300 + 1000, 25) == 10
    assert taken(counts, limits, A, START + 300 + 1000 + 60_000, 25) == 10


def test_a_client_does_not_use_up_another_ones() -> None:
    counts, limits = private(KEY), Limits(client_new_per_s=3)
    assert taken(counts, limits, A, START, 9) == taken(counts, limits, B, START, 9) == 3
    assert counts.take(1, limits, A, START) == DROP_CLIENT_RATE


def test_one_more_comes_in_when_one_has_gone() -> None:
    counts, limits = private(KEY), Limits(flows=3, client_flows=2)
    assert [counts.take(1, limits, A, 0) for _ in range(3)] == [FORWARD, FORWARD, DROP_CLIENT_FLOWS]
    assert [counts.take(1, limits, B, 0) for _ in range(2)] == [FORWARD, DROP_SERVICE_FLOWS]
    counts.end(1, A)
    assert counts.flows(1) == 2
    assert [counts.take(1, limits, A, 0) for _ in range(2)] == [FORWARD, DROP_CLIENT_FLOWS]


def test_what_is_refused_takes_nothing_of_any_limit() -> None:
    counts, limits = private(KEY), Limits(flows=1, new_per_s=5, client_flows=5, client_new_per_s=5)
    assert taken(counts, limits, A, 0, 1) == 1
    before = bytes(counts.usage), bytes(counts.clients)
    assert taken(counts, limits, A, 0, 20) == taken(counts, limits, B, 0, 20) == 0
    assert (bytes(counts.usage), bytes(counts.clients)) == before


def test_services_are_counted_apart() -> None:
    counts, limits = private(KEY), Limits(client_flows=1)
    assert [counts.take(service, limits, A, 0) for service in (1, 2, 1)] == [
        FORWARD,
        FORWARD,
        DROP_CLIENT_FLOWS,
    ]


def test_a_flood_of_addresses_shuts_nobody_out_and_is_forgotten() -> None:
    counts, limits = private(KEY, 4), Limits(client_flows=1, client_new_per_s=1)
    flood = [ip(f"10.9.{n // 250}.{n % 250}") for n in range(1000)]
    assert taken(counts, limits, A, 0, 2) == 1
    assert [counts.take(1, limits, each, 0) for each in flood] == [FORWARD] * 1000
    assert counts.take(1, limits, A, 0) == DROP_CLIENT_FLOWS, "who has a place keeps it"
    assert counts.take(1, limits, B, 0) == FORWARD, "who finds none is let in"
    for each in (*flood, A, B):
        counts.end(1, each)
    assert counts.flows(1) == 0
    late = [ip(f"10.8.0.{n}") for n in range(CLIENT_PLACES)]
    assert [counts.take(1, limits, each, 2000) for each in late] == [FORWARD] * CLIENT_PLACES
    assert sum(counts.take(1, limits, each, 2000) == DROP_CLIENT_FLOWS for each in late) >= CLIENT_PLACES - 1
