"""What leaves is well-formed, and fits, whatever a sender says of how its frame is to be cut."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from l4raw.core.model import Mode, Scheduler
from l4raw.core.mtu import fragments
from l4raw.core.tables import Tables
from l4raw.wire.abi import FORWARD
from l4raw.wire.headers import Headers, parse
from l4raw.wire.segments import MOST
from tests.crafted import TCP, Tuple5, build, refix, tagged
from tests.executors import Outcome, Reference
from tests.lives import Lives
from tests.noise import CLIENTS, SERVICES, Noise, Tagging, make_policies, make_world
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, make_tables, service

FRAMES = 10_000
SIZES = (0, 1, 44, 48, 100, 536, 1460, 0xFFFF)
"""Payload bytes of a segment, as a sender on this machine may ask for them."""
MACS = OUR_MACS[0], CLIENT_MAC
NARROW = 576
"""Bytes of an IP packet; an ICMP error of ours is as long."""


def assert_fits(outcome: Outcome, tables: Tables) -> int:
    """Returns how many frames were made."""
    for made in outcome.made:
        read = parse(made)
        assert isinstance(read, Headers), made.hex()
        assert read.src_mac in OUR_MACS
        assert read.length <= max(tables.arms[outcome.arm].mtu, 1280 if len(read.src) == 16 else 0)
    return len(outcome.made)


def world() -> Reference:
    reference = Reference(make_world(Reference.new))
    reference.tables.install(make_policies()[0])
    for arm in range(2):
        reference.tables.set_mtu(arm, NARROW)
    return reference


def first_fragments() -> Iterator[bytes]:
    """Of 980 bytes, with ports, to each service of IPv4; the same with a tag."""
    for each in SERVICES:
        if len(each.vip) == 4:
            of = Tuple5(CLIENTS[0], 1024, each.vip, each.port or 1, each.protocol)
            whole = build(of, MACS, body=bytes(1400))
            first = next(fragments(bytes(whole), 980))
            yield from (first, tagged(first, 5))


def test_a_fragment_is_no_super_frame() -> None:
    made = 0
    for frame in first_fragments():
        outcomes = [world().run(frame, 0, 0, size) for size in SIZES]
        assert outcomes == outcomes[:1] * len(SIZES)
        made += assert_fits(outcomes[0], world().tables)
    assert made >= 50


def test_no_size_of_a_segment_breaks_anything() -> None:
    noise = Noise(20)
    random: Random = noise.random
    reference = world()
    sources = Tagging(noise, random), Tagging(Lives(random), random)
    made = 0
    for _ in range(FRAMES):
        source = random.choice(sources)
        given = source.frame()
        outcome = reference.run(given.frame, given.arm, given.csum_start, random.choice(SIZES))
        source.heard(outcome)
        made += assert_fits(outcome, reference.tables)
        reference.tables.now += 1
    assert made >= 1000


def test_not_as_many_are_made_as_may_be_asked_for() -> None:
    """60,000 frames of one would take most of a second."""
    made = set()
    for each in SERVICES:
        if len(each.vip) == 4 and each.protocol == TCP:
            of = Tuple5(CLIENTS[0], 1024, each.vip, each.port or 1, TCP)
            frame = bytes(build(of, MACS, body=bytes(60_000)))
            made |= {len(world().run(frame, 0, 0, size).made) for size in SIZES}
    assert 1000 < max(made) <= MOST


@pytest.mark.parametrize("size", [8, 36, 48])
def test_a_card_may_be_asked_for_as_many_as_there_are(size: int) -> None:
    """Linux cuts down to 8 bytes (TCP_MIN_GSO_SIZE), and where we cut nothing it is not our affair."""
    reference = Reference(make_tables([service(Mode.DSR_L2, Scheduler.MAGLEV)]))
    frame = build(Tuple5(CLIENTS[0], 1024, VIP, 80, TCP), MACS, body=bytes(60_000))
    frame[20] |= 0x40  # Don't Fragment: RFC 791, section 3.1
    refix(frame)
    assert reference.run(bytes(frame), 0, 34, size).verdict == FORWARD
