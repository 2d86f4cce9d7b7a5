"""The same frames, one after the other, on every executor: any difference fails.

Half of them are noise (noise.py), half belong to whole conversations
(lives.py). Each round is a burst of up to 64 frames, and then something that
is no frame: time passes, or leaps, flows expire, a MAC is lost or found, a
policy replaces another. Some frames have a VLAN tag, or two. Five run side by
side, each over tables of its own: the reference; `l4_steer`;
`l4_steer_burst`; the reference over the tables that the helper shares,
which is what a miss meets; and, as root, the kernel path.

    .venv/bin/python -m tests.differential [FRAMES [SEED]]
"""

from __future__ import annotations

import sys
from collections import Counter
from operator import add
from typing import Any, NamedTuple

from l4raw.core import fragments, path_mtu
from l4raw.core.decision import WAITS
from l4raw.core.states import expire
from l4raw.core.tables import Policy, Tables
from l4raw.engine import native
from l4raw.engine.shared import SharedTables
from l4raw.wire.abi import BURST, CSUM_DETECT, FORWARD, REPLY, SENT, STREAM_MS, VERDICT_NAMES
from tests.crafted import completed
from tests.executors import Bursts, Executor, Helper, Outcome, OverShared, Reference, state
from tests.kernel import ROOT, Kernel
from tests.lives import Lives
from tests.noise import MEMORY, TIGHT, B, Given, Noise, Tagging, make_policies, make_world

START_MS = (1 << 32) - 20_000
"""The clock starts shortly before it wraps; later a leap takes it there again."""
COMPARED_EVERY = 50
"""Rounds between two comparisons of all tables."""
TURNS = 50
"""Of each of the two tables in a run."""


class Difference(AssertionError):
    """Two executors did not agree."""


class Tally(NamedTuple):
    """What a run consisted of."""

    verdicts: Counter[str]
    rewritten: int
    frames: int
    completed: int
    """Frames that the helper was left to complete, and did."""
    answered: int
    """Frames that were dropped, and led to one of our own."""
    missed: dict[str, int]
    """Frames that Python decided, by reason."""
    events: list[int]
    by_kernel: int
    """Frames that the kernel path sent; 0 without it, and likewise flows that it made:"""
    admitted: int

    def with_other(self, other: Tally) -> Tally:
        """Of two runs together."""
        return Tally(
            self.verdicts + other.verdicts,
            self.rewritten + other.rewritten,
            self.frames + other.frames,
            self.completed + other.completed,
            self.answered + other.answered,
            {name: count + other.missed[name] for name, count in self.missed.items()},
            list(map(add, self.events, other.events)),
            self.by_kernel + other.by_kernel,
            self.admitted + other.admitted,
        )


class Run:
    """A run over `frames` frames from a seed."""

    def __init__(
        self, seed: int, memory: int = MEMORY, module: Any = native, margin: bytes | None = None
    ) -> None:
        noise = Noise(seed)
        self._random = noise.random
        self._sources = tuple(Tagging(each, self._random) for each in (noise, Lives(self._random)))
        self._policies = make_policies()
        self._reference = Reference(make_world(Reference.new, memory))
        self._others: list[Executor] = [
            Helper(make_world(Helper.new, memory), module, margin),
            Bursts(make_world(Bursts.new, memory), module, margin),
        ]
        if module is native:  # in these another helper has no part
            self._others.append(OverShared(make_world(OverShared.new, memory)))
            if ROOT:
                self._others.append(Kernel(make_world(Kernel.new, memory)))
        # Time passes slowly where the table is to be full.
        self._streams = 0.05 if memory == MEMORY else 0.048
        self._completed = self._answered = 0
        self._verdicts: Counter[int] = Counter()
        self._rounds = 0
        self._install(self._policies[0])
        for tables in self._all_tables():
            tables.now = START_MS

    def until(self, frames: int) -> None:
        """Steer on all of them until it was so many frames, or a few more. Raises `Difference`."""
        while self._verdicts.total() < frames:
            self._verdicts.update(self._burst(self._random.choice((1, 2, 5, 17, BURST))))
            self._event()
            self._rounds += 1
            if self._rounds % COMPARED_EVERY == 0:
                self._compare_tables()

    def end(self) -> Tally:
        """What it consisted of. Raises `Difference` if the tables are not the same."""
        self._compare_tables()
        verdicts = self._verdicts
        # As the tables have them: a fragment that waits has its verdict later, from no frame of its own.
        named = Counter(dict(zip(VERDICT_NAMES, self._reference.tables.verdicts, strict=True)))
        sent, helper = verdicts[FORWARD] + verdicts[REPLY], self._others[0].tables
        assert isinstance(helper, SharedTables)
        seen = self._completed, self._answered
        kernels = [each for each in self._others if isinstance(each, Kernel)]
        by_kernel = sum(each.forwarded for each in kernels), sum(each.admitted for each in kernels)
        return Tally(named, sent, verdicts.total(), *seen, helper.misses(), helper.total_events(), *by_kernel)

    def _burst(self, size: int) -> list[int]:
        given: list[Given] = []
        expected: list[Outcome] = []
        for _ in range(size):
            source = self._random.choice(self._sources)
            each, outcome = self._ask_reference(source.frame())
            source.heard(outcome)
            self._answered += outcome.verdict >= SENT and bool(outcome.made)
            given.append(each)
            expected.append(outcome)
        for executor in self._others:
            got = executor.run_all([self._as_told(executor, each) for each in given])
            for each, want, have in zip(given, expected, got, strict=True):
                if not same(each, want, have):
                    raise Difference(explain(executor, each, want, have))
        return [outcome.verdict for outcome in expected]

    def _ask_reference(self, each: Given) -> tuple[Given, Outcome]:
        """Half of the frames say where their checksum is partial; of the others the helper must see it."""
        if self._random.random() < 0.5:
            outcome = self._reference.run(*each)
        else:
            whole = completed(each.frame)
            outcome = self._reference.run(whole, each.arm, 0)
            self._completed += outcome.verdict < SENT and whole != each.frame
            each = each._replace(csum_start=CSUM_DETECT)
        return each, outcome

    def _as_told(self, executor: Executor, each: Given) -> Given:
        """The reference over shared tables has no detection: it is told, or gets the frame complete."""
        if isinstance(executor, OverShared) and each.csum_start == CSUM_DETECT:
            return Given(completed(each.frame), each.arm, 0)
        return each

    def _event(self) -> None:
        random, chance = self._random, self._random.random()
        now = self._reference.tables.now + random.choice((0, 0, 1, 5, 30))
        if 0.04 < chance < self._streams:
            now += STREAM_MS
        if chance < 0.002:
            now += 30_000 if random.random() < 0.8 else random.randrange(1 << 32)
        budget = random.choice((0, 16, 200, 4000))
        hop = random.randrange(1, len(B) + 1)
        mac = None if chance < 0.035 else bytes([2, 0, 0, 0, 0, B[hop - 1].address[3]])
        freed = set()
        for tables in self._all_tables():
            tables.now = now & 0xFFFF_FFFF
            freed.add(expire(tables, budget))
            fragments.expire(tables)
            path_mtu.expire(tables)
            if 0.03 < chance < 0.2:
                tables.next_hops.set_mac(hop, mac)
        if len(freed) > 1:
            raise Difference(f"expire freed {freed} flows")
        if chance > 0.97:
            self._install(random.choice((*self._policies[:1] * 4, *self._policies[1:])))

    def _install(self, policy: Policy) -> None:
        for tables in self._all_tables():
            tables.install(policy)

    def _all_tables(self) -> list[Tables]:
        return [each.tables for each in (self._reference, *self._others)]

    def _compare_tables(self) -> None:
        want = state(self._reference.tables)
        for executor in self._others:
            have = state(executor.tables)
            different = [name for name, value in want.items() if have[name] != value]
            if different:
                details = [f"{name}: {want[name]!s:.300}\n{have[name]!s:.300}" for name in different]
                raise Difference("\n".join([f"{executor.name} left other tables: {different}", *details]))


def run(seed: int, frames: int, module: Any = native, margin: bytes | None = None) -> Tally:
    """A third of `frames` frames over a flow table that seldom evicts, the others over one that is full.

    By turns, so that what only a full table shows is found early too.
    """
    rare, full = (Run(seed, memory, module, margin) for memory in (MEMORY, TIGHT))
    for turn in range(1, TURNS + 1):
        rare.until(frames // 3 * turn // TURNS)
        full.until((frames - frames // 3) * turn // TURNS)
    return rare.end().with_other(full.end())


def name_of(verdict: int) -> str:
    """Of a verdict, or of a fragment that has none yet."""
    return "waits" if verdict == WAITS else VERDICT_NAMES[verdict]


def same(each: Given, want: Outcome, have: Outcome) -> bool:
    """A frame that is not sent is left as it was; the reference may have been given it complete."""
    if want.verdict >= SENT:
        fate = have.verdict == want.verdict and have.made == want.made
        return fate and have.frame in (each.frame, want.frame)
    return want == have


def explain(executor: Executor, each: Given, want: Outcome, have: Outcome) -> str:
    """For the one who has to find the cause."""
    return (
        f"{executor.name}: {name_of(want.verdict)} expected, {name_of(have.verdict)} found; "
        f"arm {each.arm}, csum_start {each.csum_start}\n"
        f"frame    {each.frame.hex()}\nexpected {want.frame.hex()} on {want.arm}\n"
        f"found    {have.frame.hex()} on {have.arm}"
    )


def main() -> None:
    """Run, and print what it consisted of."""
    given = [int(each) for each in sys.argv[1:3]]
    frames, seed = [*given, *(200_000, 1)[len(given) :]]
    tally = run(seed, frames)
    print(
        f"{tally.frames} frames from seed {seed}, {tally.rewritten} sent, {tally.completed} completed, "
        f"{tally.by_kernel} by the kernel path, which made {tally.admitted} flows, "
        f"missed: {tally.missed}, events: {tally.events}"
    )
    for name in VERDICT_NAMES:
        print(f"{tally.verdicts[name]:8} {name}")


if __name__ == "__main__":
    main()
