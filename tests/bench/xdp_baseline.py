"""What the bare AF_XDP loop forwards: saturated, and at most without loss. Root, two CPUs.

python -m tests.bench.xdp_baseline [SECONDS]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from l4raw.netns import Topology

from l4raw.bench.sink import Sink
from l4raw.bench.wires import wires
from tests.bench.testbed import HERE, running
from tests.bench.xdp_load import UNPACED, Load, offer

TRIES: Final = 5
"""Runs of a load before it counts as not carried: other jobs on the CPU cost frames in some of them."""
STEPS: Final = 6
"""Of the search, each half of the one before."""
LEAST_OFFERED: Final = 0.95
"""Of the rate: else the generator did not run for long enough."""
LEAST_SHARE: Final = 0.97
"""Of its CPU that the loop must have had; a pause of 1 ms loses more than a ring holds."""
CAUSES: Final = ("rx_ring_full", "rx_fill_ring_empty_descs", "tx_ring_full", "tx_invalid_descs")
"""Counters of loss. With no more frames than the RX ring has descriptors, a loop that is too slow finds the
fill ring empty before the RX ring is full. The kernel's rx_dropped has the fill ring's losses once more."""


class TooBusy(Exception):
    """This machine cannot answer now."""


class Run(NamedTuple):
    """A load, and what the loop said of it."""

    load: Load
    words: dict[str, Any]

    def drops(self) -> dict[str, int]:
        """Frames by cause, those on the two veth pairs included; the sum is what was lost."""
        found = {cause: sum(port[cause] for port in self.words["ports"]) for cause in CAUSES}
        found["first wire"] = max(0, self.load.offered - self.load.delivered)
        found["last wire, or unknown"] = self.load.lost - sum(found.values())
        return found

    def judge(self, rate: float) -> str:
        """Whether a load of `rate` was carried, or another job on the CPUs leaves that open."""
        enough = self.load.offered_rate >= LEAST_OFFERED * rate
        if enough and not self.load.lost:
            return "carried"
        return "not carried" if enough and self.words["cpu_share"] >= LEAST_SHARE else "disturbed"

    def __str__(self) -> str:
        drops = ", ".join(f"{cause} {count:,}" for cause, count in self.drops().items() if count) or "none"
        modes = " and ".join(port["mode"] for port in self.words["ports"])
        share = f"loop had {self.words['cpu_share']:.0%} of its CPU"
        return f"{self.load}\n    drops: {drops}; {modes} mode; {share}"


@contextmanager
def bed() -> Iterator[tuple[Topology, Sink]]:
    """The wires with the sink at their end."""
    with wires() as network, Sink(network.backends[0]) as sink:
        yield network, sink


def run(network: Topology, sink: Sink, rate: float, seconds: float) -> Run:
    """Offer a load to a loop that is started for it, so that its counters are of this load."""
    argv = [str(HERE / "xdp_bare.py"), *network.interfaces, network.client.mac, network.backends[0].mac]
    with running(network, argv) as words:
        load = offer(network, sink, rate, seconds)
    return Run(load, words)


def carried(network: Topology, sink: Sink, rate: float, seconds: float) -> Run | None:
    """The first of TRIES runs in which nothing was lost (RFC 2544, section 26.1), or None; prints all.

    Raises TooBusy when all were disturbed.
    """
    disturbed = 0
    for _ in range(TRIES):
        found = run(network, sink, rate, seconds)
        said = found.judge(rate)
        print(f"  {rate:11,.0f}/s: {said}: {found}", flush=True)
        if said == "carried":
            return found
        disturbed += said == "disturbed"
    if disturbed == TRIES:
        raise TooBusy(f"{rate:,.0f} frames/s were not tried: other jobs had the CPUs")
    return None


def search(network: Topology, sink: Sink, most: float, seconds: float) -> Run | None:
    """The highest load below `most` frames/s that is carried, by halving, or None. Raises TooBusy."""
    low, high, best = 0.0, most, None
    for _ in range(STEPS):
        rate = (low + high) / 2
        found = carried(network, sink, rate, seconds)
        low, high, best = (rate, high, found) if found else (low, rate, best)
    return best


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with bed() as (network, sink):
        runs = [run(network, sink, UNPACED, seconds) for _ in range(3)]
        saturated = max(runs, key=lambda each: each.load.rate)
        print(f"bare AF_XDP loop, saturated, best of 3: {saturated}", flush=True)
        try:
            best = search(network, sink, 2 * saturated.load.rate, seconds)
            print(f"bare AF_XDP loop, without loss: {best or 'none'}")
        except TooBusy as error:
            print(f"bare AF_XDP loop, without loss: unknown: {error}")


if __name__ == "__main__":
    main()
