"""The first inputs of the fuzzer: the frames of the vectors, and noise. How they are written: steps.h."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from random import Random
from struct import pack

from l4raw.wire.abi import CSUM_DETECT
from tests.executors import Reference
from tests.noise import Given, Noise, Tagging, make_policies, make_world

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
NOISE = 150
"""Inputs made of it."""
AT_ONCE = 16
"""Frames in one of them."""
LONGEST = 400
"""Of a frame: long ones are slow, and say no more."""


class Step(IntEnum):
    """As in steps.h."""

    FRAME = 0
    AGAIN = 1
    ANSWER = 2
    FLOOD = 3
    BURST = 4
    CLOCK = 5
    SWITCH = 6
    QUEUE = 7
    FREE = 8
    EXPIRE = 9
    PUT = 10
    TOUCH = 11
    HOP = 12


UNTOLD, TOLD, FIX, ODD_START = 2, 4, 8 | 16, 32
"""Bits of `how`: see HOW_UNTOLD and the others in fuzz.h."""


def frame(given: Given, how: int = 0) -> bytes:
    """The step that gives this frame."""
    data, arm, start = given
    if start:
        how |= UNTOLD if start == CSUM_DETECT else ODD_START
    return pack("=BBBBH", Step.FRAME, how | arm, start & 0xFF, 0, len(data)) + data


def from_vectors() -> Iterator[bytes]:
    """Each vector's frames, in the first world."""
    for path in sorted(VECTORS.glob("*.toml")):
        steps = tomllib.loads(path.read_text("utf-8"))["step"]
        frames = [Given(bytes.fromhex(s["frame"]), s["arm"], s.get("csum_start", 0)) for s in steps]
        yield bytes(1) + b"".join(frame(each, FIX) for each in frames if len(each.frame) < LONGEST * 10)


def from_noise(seed: int = 1) -> Iterator[bytes]:
    """Frames of flows, and what happens between them."""
    noise, tables = Noise(seed), make_world(Reference.new)
    tables.install(make_policies()[0])
    reference, random = Reference(tables), Random(seed)
    source = Tagging(noise, random)
    for _ in range(NOISE):
        steps = [pack("=BB", Step.BURST, random.randrange(64))]
        while len(steps) < AT_ONCE:
            given = source.frame()
            source.heard(reference.run(*given))
            if len(given.frame) < LONGEST:
                steps.append(frame(given, FIX if random.random() < 0.8 else 0))
                steps += _between(random)
        yield bytes([random.randrange(2)]) + b"".join(steps)


def _between(random: Random) -> list[bytes]:
    """Now and then a step that is no frame of its own."""
    of = {
        Step.AGAIN: pack("=BBBBB", 0, FIX, 0, random.choice((0, 47, 22)), random.choice((0, 1, 4, 6, 16))),
        Step.ANSWER: pack("=BBBB", 0, FIX, 0, random.choice((0, 16, 17, 18, 4))),
        Step.FLOOD: pack("=BBB", 0, FIX, random.randrange(64)),
        Step.BURST: pack("=B", random.randrange(64)),
        Step.CLOCK: pack("=I", random.choice((1, 1000, 5000, 1 << 31))),
        Step.SWITCH: b"",
        Step.QUEUE: pack("=B", random.randrange(3)),
        Step.FREE: pack("=B", random.randrange(40)),
        Step.EXPIRE: pack("=H", random.choice((0, 1000, 5000))),
        Step.PUT: random.randbytes(4),
        Step.TOUCH: random.randbytes(6),
        Step.HOP: random.randbytes(2),
    }
    step = random.choice(list(of)) if random.random() < 0.4 else None
    return [] if step is None else [bytes([step]) + of[step]]


def write_seeds(folder: Path) -> int:
    """Write all of them into `folder`, which is made. How many."""
    folder.mkdir(exist_ok=True)
    count = 0
    for count, seed in enumerate((*from_vectors(), *from_noise()), start=1):
        (folder / f"{count:04}").write_bytes(seed)
    return count
