"""Flows in memory: how fast new ones are admitted, how many fit, and what a full table does.

    python -m tests.bench.flows

Ends with the bounds; exit code 1 if one is missed. No socket; frames are made by a shim in C from the number
of a flow (flow_shim.py), in bursts of 64, and every result is counted by l4_count() as a queue would. What
making the frames takes is measured without the helper, and taken off. Lives here: what flows cost; what a
frame of a known flow costs is helper.py's.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

from l4raw.core.hashing import hash_key
from l4raw.core.model import Mode, Scheduler
from l4raw.core.room import bytes_for
from l4raw.core.states import expire
from l4raw.core.tables import Arm, compile_policy
from l4raw.engine.layout import Sizes
from l4raw.engine.memory import Memory, anonymous
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_FLOWS_FULL, EVENT_EVICTED_HALF_OPEN, FORWARD, MISS, REPLY
from tests.bench.flow_shim import Shim
from tests.bench.helper import acknowledging
from tests.crafted import TCP, UDP, Tuple5, build
from tests.tables import CLIENT_MAC, OUR_MACS, SEED, VIP, backends, ip, service

LEAST_NEW = {UDP: 2_000_000, TCP: 1_500_000}
"""Flows/s under NAT."""
MOST_BYTES = {Mode.DSR_L2: 100, Mode.NAT: 200}
MOST_GROWTH = 1 << 20
MOST_SLOWER = 1.1
"""A known flow's frame when the table is full, compared to when it is not."""
MANY = 10_000_000
"""DSR flows, or entries, that a large table holds."""
NEW, KNOWN, PAIRS = 200_000, 100_000, 10
ROOM = {Mode.DSR_L2: 100_000, Mode.NAT: 50_000}
SCHEDULERS = tuple(s for s in Scheduler if s not in (Scheduler.LC, Scheduler.WLC))
_POPULATE_WRITE = 23  # Linux 5.14: the kernel's part is done before the clock runs


class Tallied:
    """An allocator that adds up, and has the kernel give all of it at once."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, name: str, size: int) -> Memory:
        memory = anonymous(name, size)
        self.total += size
        if isinstance(memory, mmap):
            with suppress(OSError):
                memory.madvise(_POPULATE_WRITE)
        return memory


def frames_of(protocol: int, mode: Mode) -> list[bytes]:
    """What makes a flow an established one: of UDP two datagrams, under NAT the second long after an answer.

    Of TCP, under NAT: a SYN, its SYN-ACK, an ACK, and a FIN.
    """
    of, macs = Tuple5(ip("10.1.0.0"), 1024, VIP, 80, protocol), (OUR_MACS[0], CLIENT_MAC)
    if protocol == UDP:
        asks = bytes(build(of, macs))
        return [asks, b"\xff" + OUR_MACS[1], asks] if mode is Mode.NAT else [asks] * 2
    syn, ack, fin = (build(of, macs, flags) for flags in (tcp.SYN, tcp.ACK, tcp.FIN | tcp.ACK))
    ack[42:46] = fin[42:46] = acknowledging(syn)
    return [bytes(syn), b"\xff" + OUR_MACS[1], bytes(ack), bytes(fin)]


def tables_for(
    mode: Mode, entries: int, scheduler: Scheduler = Scheduler.MAGLEV, protocol: int = UDP
) -> tuple[SharedTables, int]:
    """One service with three backends, and room for so many entries; and the bytes of all tables."""
    arms = tuple(Arm(f"eth{i}", OUR_MACS[i]) for i in range(2))
    tally, sizes = Tallied(), Sizes(bytes_for(-(-entries * 100 // 70 // 4) + 1))
    tables = SharedTables(arms, hash_key(b"bench"), sizes, tally)
    where = {b.address: (tables.next_hops.pin(1, CLIENT_MAC[:5] + b.address[3:]), 1) for b in backends()}
    tables.install(compile_policy([service(mode, scheduler, protocol=protocol)], where, SEED))
    return tables, tally.total


def new_flows(shim: Shim, scheduler: Scheduler, protocol: int, crowded: bool = False) -> float:
    """Flows/s under NAT, the median of rounds, each into empty tables.

    `crowded`: of questions that are answered once, where others have half of the table, and the share of
    half-open flows is full: so each of them has another one go.
    """
    frames, rounds, before = frames_of(protocol, Mode.NAT), shim.rounds, 0
    if crowded:
        frames = frames[:2]

    def run(steer: bool) -> float:
        ns, verdicts = shim.run(tables, frames, NEW, first=before, steer=steer)
        if steer:
            expected = {FORWARD: NEW * (len(frames) - 1), REPLY: NEW}
            assert verdicts == expected, f"{scheduler}: {verdicts}, misses are {MISS}"
            assert not crowded or tables.total_events()[EVENT_EVICTED_HALF_OPEN] >= NEW, "one for each"
            assert crowded or len(tables.flows) == 2 * NEW, "a pair of entries each"
        return ns

    rounds.restart((False, True))
    for _ in rounds.wanted():
        tables, _ = tables_for(Mode.NAT, 2 * NEW, scheduler, protocol)
        if crowded:
            before = tables.flows.capacity // 4 + 2 * tables.flows.share.limit
            shim.run(tables, frames, before)
        for steer in (False, True):
            rounds.take(steer, partial(run, steer))
    base, ns = rounds.medians()
    return NEW / (ns - base) * 1e9


class Full(NamedTuple):
    """What a table took."""

    flows: int
    capacity: int
    refused: int
    """Of as many more."""
    table_bytes: int
    growth: int
    """Bytes of the process, beyond its tables."""


def resident() -> int:
    """Bytes of this process's memory."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


def fill(shim: Shim, mode: Mode, entries: int, more: int = 1000) -> tuple[Full, SharedTables]:
    """Fill a table until it refuses, and ask for `more` flows beyond that."""
    tables, total = tables_for(mode, entries)
    capacity = tables.flows.capacity // (2 if mode is Mode.NAT else 1)
    frames = frames_of(UDP, mode)
    shim.run(tables, frames, 64, steer=False)
    before = resident()
    _, taken = shim.run(tables, frames, capacity)
    _, beyond = shim.run(tables, frames, more, first=capacity)
    growth = resident() - before
    replies = {REPLY: capacity} if mode is Mode.NAT else {}
    assert taken == {FORWARD: 2 * capacity} | replies, f"nothing is refused below the capacity: {taken}"
    assert tables.total_verdicts()[DROP_FLOWS_FULL] == beyond.get(DROP_FLOWS_FULL, 0), "and it is counted"
    return Full(taken[FORWARD] // 2, capacity, beyond.get(DROP_FLOWS_FULL, 0) // 2, total, growth), tables


def makes_room(shim: Shim, mode: Mode) -> int:
    """Flows that a full table takes after all of its own have expired."""
    full, tables = fill(shim, mode, 100_000)
    tables.now = 3_600_000
    while len(tables.flows):
        expire(tables, tables.flows.entries)
    return shim.run(tables, frames_of(UDP, mode), full.capacity, first=1 << 22)[1].get(FORWARD, 0) // 2


def when_full(shim: Shim, mode: Mode) -> float:
    """A known flow's frame in a full table, by one in a table that is not: median of pairs in turns."""
    entries = MANY // 10
    both = [tables_for(mode, entries)[0] for _ in range(2)]
    frames = frames_of(UDP, mode)
    for tables in both:
        shim.run(tables, frames, KNOWN)
    capacity = both[1].flows.capacity // (2 if mode is Mode.NAT else 1)
    shim.run(both[1], frames, capacity - KNOWN, first=KNOWN)
    _, beyond = shim.run(both[1], frames, 64, first=capacity)
    assert beyond[DROP_FLOWS_FULL] == 2 * 64 and FORWARD not in beyond, "it is full"
    one = frames[:1]
    ratios = []
    for _ in range(PAIRS):
        base, _ = shim.run(both[0], one, KNOWN, steer=False)
        took = []
        for tables in both:
            ns, verdicts = shim.run(tables, one, KNOWN)
            assert verdicts == {FORWARD: KNOWN}
            took.append(ns - base)
        ratios.append(took[1] / took[0])
    return statistics.median(ratios)


def measure(shim: Shim) -> Iterator[tuple[str, bool]]:
    """Each bound with what was measured, and whether it holds."""
    for protocol, name in ((UDP, "UDP, asked, answered, asked again"), (TCP, "TCP, SYN SYN-ACK ACK FIN")):
        for scheduler in SCHEDULERS:
            rate, least = new_flows(shim, scheduler, protocol), LEAST_NEW[protocol]
            what = f"new flows, nat, {scheduler}, {name} ({shim.rounds})"
            yield f"{what}: {rate:,.0f}/s, at least {least:,}/s", rate >= least
    rate = new_flows(shim, Scheduler.MAGLEV, UDP, crowded=True)
    what = f"new flows, nat, {Scheduler.MAGLEV}, UDP, asked, answered, another one goes ({shim.rounds})"
    yield f"{what}: {rate:,.0f}/s, at least {LEAST_NEW[UDP]:,}/s", rate >= LEAST_NEW[UDP]
    for mode in MOST_BYTES:
        full, _ = fill(shim, mode, MANY)
        a_flow, most = full.table_bytes / full.flows, MOST_BYTES[mode]
        per_gib = int((1 << 30) / a_flow)
        yield (
            f"memory, {mode}: {full.flows:,} flows in {full.table_bytes:,} bytes, {a_flow:.2f} a flow,"
            f" at most {most}; {per_gib:,} flows a GiB",
            a_flow <= most,
        )
        yield (
            f"memory, {mode}: the process grew by {full.growth:,} bytes, under 1 MiB",
            full.growth < MOST_GROWTH,
        )
        yield (
            f"full, {mode}: the next 1,000 flows, {full.refused:,} refused and counted",
            full.refused == 1000,
        )
        again = makes_room(shim, mode)
        yield f"full, {mode}: {again:,} flows again after expiry", again >= ROOM[mode]
        ratio = when_full(shim, mode)
        yield (
            f"full, {mode}: known flows take {ratio:.2f} of the time, at most {MOST_SLOWER}",
            ratio <= MOST_SLOWER,
        )


def main() -> int:
    """Measure and print; 1 if a bound is missed."""
    met = True
    with tempfile.TemporaryDirectory(prefix="l4raw-bench.") as folder:
        for text, holds in measure(Shim(Path(folder))):
            print(f"bound: {text}: {'met' if holds else 'missed'}", flush=True)
            met = met and holds
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
