"""Next hops are shared, counted and bounded."""

from __future__ import annotations

import pytest

from l4raw.core.next_hops import NextHops

A, B, C = (bytes([2, 0, 0, 0, 0, last]) for last in (1, 2, 3))


def test_flows_from_one_mac_share_a_hop_until_the_last_of_them_ends() -> None:
    hops = NextHops()
    index = hops.learn(0, A)
    assert hops.learn(0, A) == index
    assert hops.learn(1, A) != index, "the same MAC behind the other arm is another hop"
    assert (hops.macs[index], hops.arms[index], len(hops)) == (A, 0, 2)
    hops.release(index)
    assert hops.macs[index] == A
    hops.release(index)
    assert hops.macs[index] is None and len(hops) == 1


def test_a_freed_index_is_used_again_for_another_hop() -> None:
    hops = NextHops()
    index = hops.learn(0, A)
    hops.release(index)
    assert hops.learn(1, B) == index
    assert (hops.macs[index], hops.arms[index]) == (B, 1)
    assert hops.learn(0, A) != index


def test_index_0_is_none_and_the_limit_holds() -> None:
    hops = NextHops(limit=2)
    assert (hops.pin(0), hops.learn(0, A), hops.learn(0, B)) == (1, 2, 0)
    assert hops.learn(0, A) == 2, "a known one still is"
    with pytest.raises(OverflowError, match="2 next hops"):
        hops.pin(0)


def test_a_pinned_hop_stays_and_changes_its_mac() -> None:
    hops = NextHops()
    index = hops.pin(1)
    assert hops.macs[index] is None
    hops.set_mac(index, C)
    assert hops.macs[index] == C
    assert hops.learn(1, C) != index, "a client may share a backend's MAC, but not its lifetime"
