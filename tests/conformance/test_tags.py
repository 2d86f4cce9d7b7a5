"""A tag changes nothing: what becomes of a frame, becomes of the same one with a tag, and the tag stays."""

from __future__ import annotations

from random import Random

import pytest

from l4raw.core import fragments
from l4raw.core.states import expire
from l4raw.wire.abi import SENT
from tests.crafted import tagged, untagged
from tests.differential import name_of
from tests.executors import Executor, Outcome, state
from tests.kernel import EXECUTORS
from tests.lives import Lives
from tests.noise import Given, Noise, Source, make_policies, make_world

pytestmark = pytest.mark.native

FRAMES = 12_000
TAGS = (0, 5, 0x6005, 0xFFFF)


def with_tag(given: Given, tci: int) -> Given:
    return Given(tagged(given.frame, tci), given.arm, given.csum_start and given.csum_start + 4)


def expected(plain: Outcome, tci: int) -> Outcome:
    """Each frame that goes out has the tag; those that waited come with one of their own, looked at below."""
    return plain._replace(frame=tagged(plain.frame, tci))


@pytest.mark.parametrize("kind", EXECUTORS, ids=lambda kind: kind.name)
def test_whatever_becomes_of_a_frame_becomes_of_it_with_a_tag(kind: type[Executor]) -> None:
    plain, other = kind(make_world(kind.new)), kind(make_world(kind.new))
    policies, random = make_policies(), Random(3)
    noise = Noise(3)
    sources: tuple[Source, ...] = (noise, Lives(noise.random))
    seen = {"sent": 0, "made": 0}
    for each in (plain, other):
        each.tables.install(policies[0])
    for number in range(FRAMES):
        source = random.choice(sources)
        given = source.frame()
        if len(given.frame) < 14 or given.frame[12:14] in (b"\x81\0", b"\x88\xa8"):
            continue
        tci = random.choice(TAGS)
        want, have = plain.run(*given), other.run(*with_tag(given, tci))
        source.heard(want)
        assert have._replace(made=()) == expected(want, tci)._replace(made=()), (
            f"{number}: {name_of(want.verdict)}, {name_of(have.verdict)}\n"
            f"{given.frame.hex()}\n{have.frame.hex()}"
        )
        assert tuple(map(untagged, have.made)) == want.made
        tags = {made[14:16] for made in have.made}
        assert tags <= {tag.to_bytes(2) for tag in TAGS}
        if want.verdict >= SENT:
            assert tags <= {tci.to_bytes(2)}, "an answer has the tag of what it answers"
        seen["sent"] += want.verdict < SENT
        seen["made"] += bool(want.made)
        if number % 64 == 0:
            for each in (plain, other):
                each.tables.now += 40
                expire(each.tables, 200)
                fragments.expire(each.tables)
    assert seen["sent"] > FRAMES * 0.3 and seen["made"] > FRAMES * 0.02, seen
    assert without_bytes(plain) == without_bytes(other)


def without_bytes(executor: Executor) -> dict[str, object]:
    """All that is in the tables, but for bytes, in which tags are counted."""
    found = state(executor.tables)
    traffic = found["traffic"]
    assert isinstance(traffic, list)
    counted = ("packets", "reply_packets", "dropped", "flows", "ended")
    return found | {"traffic": [[getattr(each, name) for name in counted] for each in traffic]}
