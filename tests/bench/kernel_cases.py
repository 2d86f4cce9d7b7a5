"""The cases of `python -m tests.bench.kernel`, each with the bound of the project.

Lives here: what is measured beside what. Must not live here: words (kernel.py); networks, load and turns
(l4raw/bench).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from l4raw.bench.bed import CHANGES, Bed, Setting, bed, subject_of
from l4raw.bench.generator import Order, Stream
from l4raw.bench.subject import Subject
from l4raw.bench.swaps import swaps
from l4raw.bench.turns import Pair, spread, take_turns
from l4raw.core.model import Mode
from tests.bench.nftables import tracked, translating

SECONDS = 0.25
FLOWS = (1_000, 100_000, 1_000_000)
OF_XDP_TX = dict(zip(FLOWS, (0.70, 0.42, 0.33), strict=True))
OF_NFTABLES = dict(zip(FLOWS, (3.0, 4.0, 4.0), strict=True))
LEAST_CHANGES, LEAST_TUNNEL, LEAST_NEW = 0.75, 0.55, 2_000_000
NEW_RUNS, NEW_SECONDS = 5, 0.2


class Row(NamedTuple):
    """A line of the table."""

    name: str
    measured: str
    beside: str
    ratio: str
    value: float
    bound: float
    """0: none."""
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the bound holds."""
        return not self.bound or (self.value <= self.bound if self.at_most else self.value >= self.bound)

    def line(self) -> str:
        """As Markdown."""
        bound = f"{'<=' if self.at_most else '>='} {self.bound:g}" if self.bound else "-"
        said = ("met" if self.met else "MISSED") if self.bound else ""
        return f"| {self.name} | {self.measured} | {self.beside} | {self.ratio} | {bound} | {said} |"

    def __str__(self) -> str:
        bound = f"; bound {self.bound:g}: {'met' if self.met else 'MISSED'}" if self.bound else ""
        return f"{self.name}: {self.measured} beside {self.beside or 'nothing'}, ratio {self.ratio}{bound}"


def of_pairs(name: str, pairs: Sequence[Pair], bound: float) -> Row:
    """The median ratio, and the rates of the pair that has it."""
    middle = sorted(pairs, key=lambda pair: pair.ratio)[len(pairs) // 2]
    ratios = spread([pair.ratio for pair in pairs])
    rates = f"{middle.ours / 1e6:.2f} M/s", f"{middle.theirs / 1e6:.2f} M/s"
    return Row(name, *rates, str(ratios), ratios.median, bound)


@contextmanager
def filled(setting: Setting, folder: Path) -> Iterator[tuple[Bed, Subject]]:
    """A balancer that knows the flows."""
    with bed(setting) as found, subject_of(found, folder) as subject:
        if setting.entries:
            found.fill(subject)
        yield found, subject


def beside_bare(setting: Setting, folder: Path) -> list[Pair]:
    """The kernel path and the bare program, change by change under one flood."""
    with filled(setting, folder) as (found, subject):
        order = Order([Stream(flows=setting.flows)], 0, True, found.protocol)
        return swaps(found, subject, order)


def one_arm(folder: Path) -> Iterator[Row]:
    """UDP, with an entry for each flow."""
    for flows, bound in OF_XDP_TX.items():
        pairs = beside_bare(Setting(flows=flows, arms=1), folder)
        yield of_pairs(f"dsr-l2, one arm, UDP, {flows:,} flows, of XDP_TX", pairs, bound)


def changes(folder: Path) -> Iterator[Row]:
    """TCP without entries."""
    for flows in FLOWS:
        pairs = beside_bare(Setting(flows=flows, arms=1, protocol="tcp", remembers=CHANGES), folder)
        name = f'dsr-l2, one arm, TCP, flows = "track-changes", {flows:,} flows, of XDP_TX'
        yield of_pairs(name, pairs, LEAST_CHANGES)


def tunnels(folder: Path) -> Iterator[Row]:
    """Known flows."""
    for mode in (Mode.DSR_IPIP, Mode.DSR_GUE):
        pairs = beside_bare(Setting(mode, arms=1), folder)
        yield of_pairs(f"{mode}, one arm, UDP, 1,000 flows, of XDP_TX", pairs, LEAST_TUNNEL)


def both_ways(folder: Path) -> Iterator[Row]:
    """NAT, beside the kernel's."""
    for mode in (Mode.NAT, Mode.FULLNAT):
        for flows, bound in OF_NFTABLES.items():
            setting = Setting(mode, flows=flows)
            with filled(setting, folder) as (ours, _), bed(setting) as theirs:
                with translating(theirs.network, setting.protocol):
                    _go_round(theirs)
                    if (known := tracked(theirs.network)) < flows:
                        raise RuntimeError(f"the kernel tracks {known:,} of {flows:,} connections")
                    pairs = take_turns(lambda: ours.flood(SECONDS).rate, lambda: theirs.flood(SECONDS).rate)
            yield of_pairs(f"{mode}, two arms, UDP, {flows:,} flows, of nftables DNAT", pairs, bound)


def _go_round(found: Bed, seconds: float = 0.5) -> None:
    """Floods, until each known flow has had a frame, and one more."""
    sent = 0
    while sent < 2 * found.setting.flows:
        sent += found.flood(seconds).sent.known


def new_flows(folder: Path) -> Iterator[Row]:
    """Admitted in the kernel, under DSR."""
    for protocol, frames in (("udp", "two datagrams"), ("tcp", "SYN and ACK")):
        setting, rates, shares, made = Setting(arms=1, protocol=protocol, memory="256MiB"), [], [], 0
        with bed(setting) as found, subject_of(found, folder) as subject:
            for _ in range(NEW_RUNS):
                before = subject.count()
                load = found.new(NEW_SECONDS, start=made)
                after = subject.count()
                made += load.sent.new // 2 + 1
                admitted = after["flows"] - before["flows"]
                rates.append(admitted / load.sent.seconds)
                shares.append(_in_kernel(before, after) / max(1, load.sent.new))
        name = f"dsr-l2, one arm, maglev, new flows, {frames} each ({median(shares):.1%} by the kernel path)"
        rate = spread([rate / 1e6 for rate in rates])
        yield Row(name, f"{rate} M/s", "", "", median(rates), LEAST_NEW)


def _in_kernel(before: dict[str, Any], after: dict[str, Any]) -> int:
    return int(after["engine"]["kernel_forwarded"] - before["engine"]["kernel_forwarded"])


GROUPS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "one-arm": one_arm,
    "track-changes": changes,
    "tunnels": tunnels,
    "nat": both_ways,
    "new-flows": new_flows,
}
"""By name, in the order of the table."""
