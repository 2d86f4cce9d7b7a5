"""Fragments that wait: for how long, how many, in every order; each frame is counted once."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable
from itertools import permutations

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from l4raw.core import fragments
from l4raw.core.model import Mode
from l4raw.core.mtu import fragments as pieces_for
from l4raw.core.steer import steer
from l4raw.core.tables import Tables
from l4raw.core.waiting import DATAGRAM_COST, FRAME_COST, PART_COST, Datagram, Fit
from l4raw.engine.base import forward
from l4raw.engine.replay import ReplayEngine
from l4raw.wire.abi import (
    DROP_FRAGMENT,
    DROP_FRAGMENT_OVERLAP,
    DROP_FRAGMENT_TWICE,
    DROP_FRAGMENTS_FULL,
    FORWARD,
    REPLY,
    SENT,
)
from l4raw.wire.ipv4 import UDP as UDP_NUMBER
from tests.crafted import Tuple5, build, refix, tuple_of
from tests.executors import Reference
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, backends, make_tables, service

BODY = bytes(range(256)) * 5


def cut(ident: int = 7, size: int = 256) -> list[bytes]:
    packet = IP(src="10.77.0.1", dst="10.77.0.100", id=ident) / UDP(sport=5353, dport=53) / Raw(BODY)
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    parts = fragment(IP(bytes(packet)), fragsize=size)  # type: ignore[no-untyped-call]
    return [bytes(ether / each) for each in parts]


def tables_for(mode: Mode) -> Tables:
    members = backends(port=5300) if mode is Mode.NAT else backends()
    return make_tables([service(mode, name="dns", port=53, protocol=UDP_NUMBER, members=members)], arms=2)


def sent(tables: Tables, frames: list[bytes]) -> list[bytes]:
    engine = ReplayEngine(frames)
    forward(engine, tables, 0)
    return [each.frame for each in engine.sent]


@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.NAT])
def test_in_every_order_the_same_datagram_arrives(mode: Mode) -> None:
    for order in permutations(cut(size=328)):
        tables = tables_for(mode)
        out = sent(tables, list(order))
        assert tables.verdicts[FORWARD] == sum(tables.verdicts) == len(order) == len(out)
        parts = sorted((IP(each[14:]) for each in out), key=lambda part: int(part.frag))
        whole = IP(src=parts[0].src, dst=parts[0].dst) / UDP(b"".join(bytes(part.payload) for part in parts))
        said = whole[UDP].chksum
        del whole[UDP].chksum
        assert IP(bytes(whole))[UDP].chksum == said
        assert bytes(whole[UDP].payload) == BODY
        assert not tables.fragments and not tables.fragment_bytes


def test_each_outer_packet_of_a_tunnel_has_its_own_identification() -> None:
    """Those of fragments that come, of ones that waited, and of what the balancer cuts: RFC 791, 3.2."""
    tables = tables_for(Mode.DSR_IPIP)
    come = sent(tables, cut(7)[1:] + cut(7)[:1] + cut(8))
    tables.set_mtu(1, 576)
    come += sent(tables, [*cut(9, 2000), *cut(10, 640)])
    outer = [IP(each[14:]) for each in come]
    assert len({each.id for each in outer}) == len(outer) == 6 + 6 + 3 + 5
    assert {each.src for each in outer} == {"10.78.0.2"} and not any(each.flags.DF for each in outer)
    assert sorted({each[IP].payload.id for each in outer}) == [7, 8, 9, 10], "inside they have their own"


def test_a_first_fragment_that_does_not_come() -> None:
    tables = tables_for(Mode.DSR_L2)
    assert sent(tables, cut()[1:3]) == [] and sum(tables.verdicts) == 0
    tables.now = fragments.TIMEOUT_MS
    fragments.expire(tables)
    assert tables.fragments
    tables.now += 1
    fragments.expire(tables)
    assert tables.verdicts[DROP_FRAGMENT] == 2 == sum(tables.verdicts)
    assert not tables.fragments and not tables.fragment_bytes


def test_the_oldest_gives_way_to_a_flood_of_datagrams() -> None:
    tables, extra = tables_for(Mode.DSR_L2), 10
    for ident in range(fragments.MOST_DATAGRAMS + extra):
        sent(tables, cut(ident)[1:2])
    assert tables.verdicts[DROP_FRAGMENTS_FULL] == extra == sum(tables.verdicts)
    assert len(tables.fragments) == fragments.MOST_DATAGRAMS
    assert tables.fragment_bytes == fragments.MOST_DATAGRAMS * cost(len(cut()[1]))


def cost(*frames: int) -> int:
    """What a datagram is charged of which frames of these lengths wait."""
    return DATAGRAM_COST + sum(PART_COST + FRAME_COST + length for length in frames)


def test_no_more_bytes_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 2 * cost(400, 400)
    monkeypatch.setattr(fragments, "MOST_BYTES", most)
    tables = tables_for(Mode.DSR_L2)
    for ident in range(20):
        sent(tables, cut(ident)[1:3])
    assert 0 < tables.fragment_bytes <= most
    waiting = sum(len(datagram.waiting) for datagram in tables.fragments.values())
    assert tables.verdicts[DROP_FRAGMENTS_FULL] == 40 - waiting == sum(tables.verdicts)


def test_a_datagram_that_gives_way_to_its_own_next_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the oldest when the store is full: what waits is in the store, and what is not is counted."""
    size, tables = len(cut()[1]), tables_for(Mode.DSR_L2)
    monkeypatch.setattr(fragments, "MOST_BYTES", 2 * cost(size))
    for _ in range(4):
        sent(tables, [cut(1)[1], cut(2)[1], cut(1)[2]])
        waiting = [frame for each in tables.fragments.values() for frame, _, _ in each.waiting]
        assert tables.fragment_bytes == cost(*map(len, waiting)) == cost(size)
        fragments._evict(tables)
    assert sum(tables.verdicts) == tables.verdicts[DROP_FRAGMENTS_FULL] == 12
    assert not tables.fragments and not tables.fragment_bytes


def test_a_link_that_is_too_narrow_for_any_fragment_still_gets_them() -> None:
    """It refuses them; here is where a loop without end, or without a step, would be."""
    (whole,) = cut(size=2000)
    parts = [IP(each[14:]) for each in pieces_for(whole, 24)]
    assert [len(part.payload) for part in parts] == [8] * (len(BODY) // 8 + 1)


def test_parts_that_do_not_fit_together() -> None:
    for parts in ([(0, 16), (8, 24)], [(8, 24), (0, 16)], [(0, 16), (0, 8)], [(0, 24), (8, 16)]):
        datagram = Datagram(0)
        assert datagram.add(*parts[0], True) is Fit.NEW and datagram.add(*parts[1], True) is Fit.NOT
        assert datagram.add(800, 808, True) is Fit.NOT, "nor any other"
        assert datagram.add(*parts[0], True) is Fit.NOT, "nor one that was there"
    for part in ((16, 24, True), (16, 24, False), (0, 8, False)):
        datagram = Datagram(0)
        assert datagram.add(8, 16, False) is Fit.NEW and datagram.add(*part) is Fit.NOT


def test_a_part_that_comes_twice_changes_nothing() -> None:
    """The same start and end. Two parts together, or the same one with another flag, are not."""
    datagram = Datagram(0)
    parts = [(8, 16, True), (0, 8, True), (24, 32, False), (16, 24, True)]
    for place, part in enumerate(parts):
        assert not datagram.complete
        assert datagram.add(*part) is Fit.NEW
        assert {datagram.add(*each) for each in parts[: place + 1]} == {Fit.TWICE}
    assert datagram.complete
    for part in ((0, 16, True), (24, 32, True), (8, 16, False)):
        datagram = Datagram(0)
        assert [datagram.add(*each) for each in parts] == [Fit.NEW] * 4 and datagram.add(*part) is Fit.NOT


@pytest.mark.parametrize("order", [(0, 1, 1, 0, 2), (1, 1, 0, 1, 2, 2), (2, 1, 2, 1, 0)])
def test_a_duplicate_is_dropped_by_itself(order: tuple[int, ...]) -> None:
    """What a switch or a bond doubles arrives all the same: as often as it would without."""
    tables, parts = tables_for(Mode.NAT), cut(size=512)
    out = sent(tables, [parts[place] for place in order])
    assert len(parts) == len(out) == tables.verdicts[FORWARD] == 3
    assert tables.verdicts[DROP_FRAGMENT_TWICE] + sum(map(len, waiting_in(tables))) == len(order) - 3
    assert not tables.verdicts[DROP_FRAGMENT_OVERLAP]


def waiting_in(tables: Tables) -> list[list[bytearray]]:
    return [[frame for frame, _, _ in each.waiting] for each in tables.fragments.values()]


_ETHERNET_TO_UDP = cut()[0][:42]


def tiny(ident: int, start: int) -> bytes:
    """A fragment of 8 bytes, padded to the least that Ethernet takes; the first one has ports."""
    frame = bytearray(_ETHERNET_TO_UDP + bytes(18))
    frame[16:22] = (28).to_bytes(2) + ident.to_bytes(2) + (0x2000 | start // 8).to_bytes(2)
    refix(frame)
    return bytes(frame)


def grown(tables: Tables, frames: Iterable[bytes]) -> int:
    """Bytes of memory that these frames have taken and not given back."""
    steer(tiny(0xFFFF, 8), 0, 0, tables)  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        for frame in frames:
            steer(frame, 0, 0, tables)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


FLOODS = {
    "a frame each": [tiny(ident, 8) for ident in range(1000)],
    "many frames each": [tiny(ident, 16 * (1 + part)) for ident in range(30) for part in range(60)],
    "first ones": [tiny(ident, 0) for ident in range(1000)],
    "parts": [tiny(ident, 16 * part) for ident in range(10) for part in range(1000)],
}
"""Each is more than the store is given room for below."""


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("mode", [Mode.DSR_L2, Mode.FULLNAT])
def test_what_is_charged_is_no_less_than_the_memory(
    mode: Mode, flood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fragments, "MOST_BYTES", most := 64 << 10)
    tables = tables_for(mode)
    real = grown(tables, FLOODS[flood])
    assert most // 4 < real <= tables.fragment_bytes <= most
    assert tables.fragment_bytes > most // 2, "a flood leaves little of the room, as a datagram goes at once"


def test_frames_that_go_on_are_charged_no_more() -> None:
    tables, parts = tables_for(Mode.NAT), cut()
    sent(tables, parts[1:4])
    assert tables.fragment_bytes == cost(*map(len, parts[1:4]))
    sent(tables, parts[:1])
    assert tables.fragment_bytes == DATAGRAM_COST + 4 * PART_COST


def test_a_broken_datagram_keeps_no_parts() -> None:
    tables = tables_for(Mode.DSR_L2)
    sent(tables, [tiny(7, 16 * part) for part in range(9)] + cut(7)[:1])
    assert tables.verdicts[DROP_FRAGMENT_OVERLAP] == 1
    assert tables.fragment_bytes == DATAGRAM_COST
    fragments.end(tables)
    assert not tables.fragments and not tables.fragment_bytes


def test_a_flow_is_made_by_the_first_fragment_alone() -> None:
    tables = tables_for(Mode.NAT)
    sent(tables, cut()[1:])
    assert len(tables.flows) == 0
    sent(tables, cut()[:1])
    assert len(tables.flows) == 2
    assert VIP in tables.policy.vips


@pytest.mark.parametrize("name", ["nat", "fullnat-pool"])
def test_a_fragment_from_the_clients_side_is_no_part_of_a_reply(name: str) -> None:
    """As a whole frame from there is no reply: only backends reply."""
    reference = Reference.named(name)
    of = Tuple5(bytes([10, 1, 2, 3]), 4000, VIP, 53, UDP_NUMBER)
    asked = reference.run(bytes(build(of, (OUR_MACS[0], CLIENT_MAC))), 0, 0)
    at_backend = tuple_of(asked.frame)
    assert at_backend is not None
    macs = OUR_MACS[1], asked.frame[:6]
    reply = list(pieces_for(bytes(build(at_backend.flipped(), macs, body=b"good" * 500)), 1300))
    forged = build(at_backend.flipped(), (OUR_MACS[0], CLIENT_MAC), body=b"evil" * 500)
    for piece in list(pieces_for(bytes(forged), 1300)):
        assert reference.run(piece, 0, 0).verdict >= SENT
    assert not reference.tables.fragments
    for piece in reply:
        outcome = reference.run(piece, 1, 0)
        assert outcome.verdict == REPLY and not outcome.made
