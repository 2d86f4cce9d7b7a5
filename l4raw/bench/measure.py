"""One setting, measured: saturation in turns with the bare program, the highest rate without loss, latency.

Lives here: the order of things, and what each figure is made of. Must not live here: how they are printed
(cli/bench.py), and what a file of them looks like (result.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from l4raw.bench import swaps as swapping
from l4raw.bench.bed import Bed, Setting, bed, subject_of
from l4raw.bench.generator import Order, Stream
from l4raw.bench.histogram import Histogram
from l4raw.bench.load import Load
from l4raw.bench.search import highest
from l4raw.bench.subject import BARE, OURS, Subject
from l4raw.bench.turns import Pair, spread
from l4raw.control.dataplane import AF_XDP, RAW, XDP
from l4raw.control.errors import L4Error
from l4raw.netns import NamespaceError
from l4raw.netns.process import temporary_folder
from l4raw.xdp import XdpError, available, status

Tell = Callable[[str, float], None]
"""Told what is being done, and which share of all is done."""

TURN_S: Final = {XDP: swapping.TURN_S, AF_XDP: 0.1, RAW: 0.5}
"""With a queue in front, a turn begins with what the last one left there."""
LOADS: Final = (0.1, 0.8)
"""Of the highest rate without loss, at which latency is measured."""
PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
TURNS_A_LOAD, LOAD_S = 10, 0.3
"""A load of the search, or of latency, lasts as long as so many turns, and so many seconds at most."""
LATENCY_TURNS: Final = 3
LEAST_OFFERED: Final = 0.95
"""Of a rate: else the generator could not, or another job had its CPU."""
MOST_LATE_NS: Final = 20_000_000
"""A load whose frames wait for longer is not carried, though a queue may hide that while it lasts."""
LOST: Final = ("receive_lost", "passed", "miss_overflow", "return_dropped")
"""Counters of an engine that are frames which went nowhere."""


def require() -> None:
    """Raises L4R-301 for others than root, L4R-304 where XDP is not to be had, L4R-306 with one CPU."""
    if os.geteuid() != 0:
        what = "the benchmark makes network namespaces and loads BPF programs"
        raise L4Error("L4R-301", what=what, fix="run it as root of this host: sudo l4raw bench")
    if not available():
        what = f"the generator is a BPF program, and l4raw.xdp is not there: {status()}"
        raise L4Error("L4R-304", what=what, fix="build l4raw with libxdp, libbpf and clang: docs/xdp.md")
    if len(os.sched_getaffinity(0)) < 2:
        raise L4Error("L4R-306", what="the benchmark needs two CPUs: one for the load, one for the balancer")


def measure(setting: Setting, pairs: int, seconds: float | None, tell: Tell) -> dict[str, Any]:
    """The figures of result.py. `seconds`: of a turn, or what is right for the dataplane.

    Raises L4Error, and RuntimeError with the last words of what has failed.
    """
    require()
    turn_s = seconds or TURN_S[setting.dataplane]
    try:
        with temporary_folder("l4raw-bench-") as folder:
            tell("building the network", 0.0)
            with bed(setting) as found, subject_of(found, Path(folder)) as subject:
                return _measure(found, subject, pairs, turn_s, tell)
    except NamespaceError as error:
        raise L4Error("L4R-301", what=str(error), where="network namespace") from error
    except XdpError as error:
        raise L4Error("L4R-304", what=str(error), fix=error.next_step or "see docs/xdp.md") from error


def _measure(found: Bed, subject: Subject, pairs: int, turn_s: float, tell: Tell) -> dict[str, Any]:
    setting = found.setting
    tell(f"admitting {setting.flows:,} flows", 0.05)
    if setting.entries:
        found.fill(subject)
    tell(f"saturated: {pairs} pairs of turns with the bare program", 0.2)
    order = Order([Stream(flows=setting.flows)], 0, True, found.protocol)
    turns = swapping.swaps(found, subject, order, pairs, turn_s)
    load_s = min(LOAD_S, TURNS_A_LOAD * turn_s)
    saturated = _saturated(turns) | _alone(found, subject, load_s)
    tell("the highest rate without loss", 0.4)
    no_loss = _without_loss(found, spread([pair.ours for pair in turns]).high, load_s)
    latencies = []
    for number, share in enumerate(LOADS if no_loss else ()):
        tell(f"latency at {share:.0%} of {no_loss:,.0f} frames/s", 0.7 + 0.15 * number)
        latencies.append(_latency(found, subject, share, no_loss * share, load_s))
    tell("done", 1.0)
    return {
        "saturated": saturated,
        "no_loss": no_loss or None,
        "latency": latencies,
        "note": subject.started["note"],
    }


def _saturated(turns: list[Pair]) -> dict[str, Any]:
    ours, theirs = [pair.ours for pair in turns], [pair.theirs for pair in turns]
    rates = spread(ours), spread(theirs), spread([pair.ratio for pair in turns])
    return {
        "rate": rates[0]._asdict(),
        "bare": rates[1]._asdict(),
        "ratio": rates[2]._asdict(),
        "ns": 1e9 / rates[0].median if rates[0].median else 0.0,
        "bare_ns": 1e9 / rates[1].median if rates[1].median else 0.0,
    }


def _alone(found: Bed, subject: Subject, load_s: float) -> dict[str, Any]:
    """A flood of its own, for what is counted: drops by reason, the kernel's share, CPU."""
    before = subject.use(OURS)
    load = found.flood(load_s)
    after = subject.count()
    return {
        "offered": load.offered_rate,
        "lost": load.lost,
        "drops": drops(load, before, after),
        "by_kernel": _more(before, after, "kernel_forwarded") / max(1, load.arrived),
        "cpu": (after["cpu_ns"] - before["cpu_ns"]) / 1e9 / load.sent.seconds,
    }


def drops(load: Load, before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """Frames by reason; what nobody has counted is the rest of what was lost."""
    verdicts = {
        name: count - before["verdicts"].get(name, 0)
        for name, count in after["verdicts"].items()
        if name.startswith("drop_")
    }
    found = {name: _more(before, after, name) for name in LOST} | verdicts
    found["first wire"] = max(0, load.offered - load.delivered)
    found["last wire, or unknown"] = max(0, load.lost - sum(found.values()))
    return {reason: count for reason, count in found.items() if count > 0}


def _more(before: dict[str, Any], after: dict[str, Any], counter: str) -> int:
    return int(after["engine"].get(counter, 0) - before["engine"].get(counter, 0))


def _without_loss(found: Bed, most: float, load_s: float) -> float:
    def carried(rate: float) -> bool:
        load = found.known(rate, load_s)
        in_time = load.known.delays.percentile(0.99) <= MOST_LATE_NS
        return not load.lost and load.offered_rate >= LEAST_OFFERED * rate and in_time

    return highest(carried, most)


def _latency(found: Bed, subject: Subject, share: float, rate: float, load_s: float) -> dict[str, Any]:
    """In turns with the bare program, at the same load: the median of the turns, in us."""
    ours: list[Histogram] = []
    theirs: list[Histogram] = []
    found.known(rate, load_s)
    for _ in range(LATENCY_TURNS):
        for who, histograms in ((OURS, ours), (BARE, theirs)):
            subject.use(who)
            histograms.append(found.known(rate, load_s, bare=who == BARE).known.delays)
    subject.use(OURS)
    figures = {name: (_us(ours, part), _us(theirs, part)) for name, part in PERCENTILES.items()}
    return {
        "load": share,
        "rate": rate,
        "us": {name: own for name, (own, _) in figures.items()},
        "bare_us": {name: bare for name, (_, bare) in figures.items()},
        "added_us": {name: own - bare for name, (own, bare) in figures.items()},
    }


def _us(histograms: list[Histogram], share: float) -> float:
    """The median over the turns: one disturbed turn is not the answer."""
    return median(each.percentile(share) / 1e3 for each in histograms)
