"""Next hops are shared, counted and bounded."""

from __future__ import annotations

import pytest

from l4raw.core.model import Mode, Scheduler
from l4raw.core.next_hops import NextHops
from l4raw.core.steer import steer
from l4raw.core.tables import Tables
from l4raw.wire import tcp
from l4raw.wire.abi import FORWARD, PASS_NOT_OURS, REPLY
from tests.crafted import TCP, Tuple5, build
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, backends, ip, make_tables, service

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


class _Raced(list[bytes | None]):
    """MACs by index; before a learned one is read, its flow goes, and another client is learned there."""

    def __init__(self, tables: Tables, flow: int) -> None:
        super().__init__(tables.next_hops.macs)
        self._tables, self._flow = tables, flow

    def __getitem__(self, index: int) -> bytes | None:  # type: ignore[override]
        hops, flows = self._tables.next_hops, self._tables.flows
        if not hops.references(index):
            return super().__getitem__(index)
        hops.macs = hops._macs
        assert self._tables.free(self._flow, flows.read(self._flow).lock)
        assert hops.learn(0, C) == index
        return C


@pytest.mark.parametrize("goes", [False, True])
def test_a_reply_never_goes_to_the_hop_of_a_later_flow(goes: bool) -> None:
    tables = make_tables([service(Mode.NAT, Scheduler.SH)], arms=2)
    client = Tuple5(ip("10.1.2.3"), 4000, VIP, 80, TCP)
    syn = steer(build(client, (OUR_MACS[0], CLIENT_MAC), tcp.SYN), 0, 0, tables)
    assert syn.verdict == FORWARD and syn.backend
    if goes:
        tables.next_hops.macs = _Raced(tables, syn.flow)
    backend = syn.backend.backend.address
    assert backend in {each.address for each in backends()}
    reply = Tuple5(backend, 80, client.src, client.sport, TCP)
    frame = build(reply, (OUR_MACS[1], CLIENT_MAC[:5] + backend[3:]), tcp.SYN | tcp.ACK)
    decision = steer(frame, 1, 0, tables)
    assert decision.verdict == (PASS_NOT_OURS if goes else REPLY)
