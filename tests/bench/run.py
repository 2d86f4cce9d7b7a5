"""`make bench`: what the raw engine does on this machine, beside what it could at most do.

Ends with a table for docs/performance.md and the bounds; exit code 1 if one is missed. About four minutes,
and two CPUs of a machine that does nothing else. Lives here: order, words and bounds; the measurements are in
memory.py and traffic.py.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from l4raw.netns.process import temporary_folder

from l4raw import __version__
from l4raw.core.model import Mode
from tests.bench import memory, traffic
from tests.bench.testbed import BALANCER_CPU, FLOWS, GENERATOR_CPU, MODES, SECONDS
from tests.bench.traffic import BACKLOG_S, ROUNDS

LEAST_FRAMES = 60_000
LEAST_GBIT = 5.0


class Result(NamedTuple):
    """All figures of one mode."""

    calls: memory.Calls
    carried: int
    overload: traffic.Overload
    there: traffic.Throughput
    """Client to backend."""
    back: traffic.Throughput | None
    """Backend to client; None where that does not pass the balancer."""


def machine() -> str:
    """What the figures belong to."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{time.strftime('%Y-%m-%d')}, l4raw {__version__}, Python {platform.python_version()},"
        f" Linux {platform.release()}, {os.cpu_count()} x {cpu[1] if cpu else platform.machine()},"
        f" load average {os.getloadavg()[0]:.1f} before"
    )


NOTES = f"""\
- Two CPUs: balancer pinned to CPU {BALANCER_CPU}, generator to CPU {GENERATOR_CPU}, iperf3 not pinned.
  veth pairs between network namespaces. On veth the receive softirq runs on the sender's CPU: what the kernel
  does up to the balancer's socket is done on the generator's CPU, and what it does from the balancer to the
  backend is done on the balancer's, as part of `send`.
- Small frames: UDP in 60 bytes, {FLOWS:,} flows, two arms, one way, {ROUNDS} runs of {SECONDS} s each.
  Carried: the highest load at and below which every run lost nothing and left less in the receive queue than
  comes in {BACKLOG_S * 1e3:.0f} ms.
- Saturated: the generator sends as fast as it can; the drops are in the receive queue (receive_lost).
  This can be less than what is carried: frames of a long queue have left the caches, and the flood itself
  slows the other CPU. The bare loop has the same sockets, writes two MAC addresses and decides
  nothing.
- ns a frame: from a run of the balancer with a clock between its steps; the kernel's part is in `receive` and
  `send`. The remainder is what that costs and is not taken off: calls of wrappers, and a clock that is slower
  to read there than in the loop that measures it.
- Kernel routing: the same network; instead of l4raw the kernel of the balancer's host forwards (ip_forward),
  to the backend's own address. No VIP, no NAT.
"""


def measure() -> dict[Mode, Result]:
    """Everything, printed as it comes."""
    modes = MODES
    print(f"\nsteer() and apply() in memory, {memory.FLOWS:,} flows, ns a call, best of {memory.REPETITIONS}")
    calls = {mode: memory.time_calls(mode) for mode in modes}
    for mode, each in calls.items():
        print(f"  {mode:8} known flow {each.known:6.0f}   new flow {each.new:6.0f}   apply {each.apply:6.0f}")
    with temporary_folder("l4raw-bench-") as folder:
        print(f"\nsmall frames: median rates of {ROUNDS} runs; drops of each, and frames queued at its end")
        carried = {mode: traffic.carried(mode, folder) for mode in modes}
        print("\nsmall frames, saturated, in turns")
        overload = {mode: traffic.overload(mode, folder) for mode in modes}
        print(f"\niperf3, one connection, default offloads, {traffic.IPERF_SECONDS} s, in turns")
        there = {mode: traffic.throughput(mode, folder) for mode in modes}
        back = {Mode.NAT: traffic.throughput(Mode.NAT, folder, reverse=True)}
    return {m: Result(calls[m], carried[m], overload[m], there[m], back.get(m)) for m in modes}


def rows(result: Result) -> Iterator[tuple[str, str]]:
    """One mode's column of the table, with the labels."""
    calls, over = result.calls, result.overload
    yield "steer() in memory: known flow, ns", f"{calls.known:,.0f}"
    yield "steer() in memory: new flow, ns", f"{calls.new:,.0f}"
    yield "small frames carried, frames/s", f"{result.carried:,}"
    for who, load in (("l4raw", over.balancer), ("bare loop", over.bare)):
        yield f"saturated: {who}, offered, frames/s", f"{load.offered_rate:,.0f}"
        yield f"saturated: {who}, forwarded, frames/s", f"{load.rate:,.0f}"
        yield f"saturated: {who}, dropped", f"{load.dropped / load.sent:.0%}"
    yield "saturated: l4raw / bare loop", f"{over.ratio:.2f}"
    for stage, ns in over.stages.items():
        yield f"ns a frame: {stage}", f"{ns:,.0f}"
    total, whole = sum(over.stages.values()), 1e9 / over.balancer.rate
    yield "ns a frame: sum of the stages", f"{total:,.0f}"
    yield "ns a frame: whole, 1 / forwarded", f"{whole:,.0f}"
    yield "ns a frame: remainder", f"{whole - total:+,.0f} ({whole / total - 1:+.0%})"
    for way, rate in (("client to backend", result.there), ("backend to client", result.back)):
        yield f"iperf3 {way}: l4raw, Gbit/s", f"{rate.balancer:.1f}" if rate else "not through l4raw"
        yield f"iperf3 {way}: kernel routing, Gbit/s", f"{rate.kernel:.1f}" if rate else "-"
        yield f"iperf3 {way}: l4raw / kernel routing", f"{rate.ratio:.2f}" if rate else "-"


def bounds(results: dict[Mode, Result]) -> Iterator[tuple[str, bool]]:
    """What must hold, and whether it does."""
    for mode, result in results.items():
        yield (
            f"{mode}: small frames carried on one core {result.carried:,}/s, at least {LEAST_FRAMES:,}/s",
            result.carried >= LEAST_FRAMES,
        )
        slower = min(rate.balancer for rate in (result.there, result.back) if rate)
        yield f"{mode}: iperf3 {slower:.1f} Gbit/s, at least {LEAST_GBIT:.1f} Gbit/s", slower >= LEAST_GBIT


def main() -> int:
    """Measure and print; 1 if a bound is missed."""
    if os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        raise SystemExit("make bench needs root, to make network namespaces, and two CPUs")
    subject = machine()
    print(subject)
    results = measure()
    columns = [dict(rows(result)) for result in results.values()]
    print(f"\n{subject}\n\n| | {' | '.join(results)} |\n| --- |{' ---: |' * len(results)}")
    for label in columns[0]:
        print(f"| {label} | {' | '.join(column[label] for column in columns)} |")
    print(f"\n{NOTES}")
    met = True
    for text, holds in bounds(results):
        print(f"bound: {text}: {'met' if holds else 'missed'}")
        met = met and holds
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
