"""What Python and misses cost the flows that the helper knows: gaps at a fixed load, floods, new flows.

Lives here: the runs. Must not live here: words and bounds (af_xdp.py), the balancer itself (in_process.py).
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from l4raw.netns import Topology

from l4raw.bench.sink import Arrived, Sink
from l4raw.bench.wires import wires
from l4raw.core.model import Mode
from tests.bench.pairs import IN_PROCESS, configuration
from tests.bench.testbed import running
from tests.bench.xdp_load import UNPACED, Load, offer

ROUNDS: Final = 3
HOLDS: Final = ("none", "asleep", "busy")
"""See in_process.py."""
RATE: Final = 200_000
"""Frames/s of known flows."""
FLOOD: Final = 200_000
"""Frames/s more, each of a new flow: some ten times what Python decides."""
TRICKLE: Final = 2_000
"""Likewise, and what Python has time for."""
SECONDS: Final = 2.0
NEW_SECONDS: Final = 0.5
"""Until the table is full, with the memory below."""
NEW_MEMORY: Final = "512MiB"
WARM_S: Final = 0.5
AFTER_SIGNAL_S: Final = 1.0
"""Python sees a signal when it has the GIL."""


class Gaps(NamedTuple):
    """Of one run, in us: between two frames at the sink, and from the generator to it."""

    p99: float
    largest: float
    delay_p99: float
    held: int
    """How often the GIL was held for 200 ms."""
    load: Load

    def __str__(self) -> str:
        return (
            f"offered {self.load.offered_rate:9,.0f}/s   lost {self.load.lost:6,}"
            f"   gap p99 {self.p99:6,.1f} us"
            f"   largest {self.largest:8,.0f} us   delay p99 {self.delay_p99:8,.1f} us"
        )


class Flood(NamedTuple):
    """Of one run with known flows and misses."""

    load: Load
    misses: int
    """Left to Python."""
    overflow: int
    """Lost, because Python had enough to do."""

    @property
    def known_share(self) -> float:
        """Of the known flows' frames that were sent, those that the sink got."""
        return self.load.known.frames / max(1, self.load.sent.known)

    @property
    def sustained(self) -> float:
        """Misses/s that Python decided and sent."""
        return self.load.new.frames / self.load.sent.seconds

    def __str__(self) -> str:
        middle, late = delays_ms(self.load.new)
        return (
            f"known flows {self.load.sent.known / self.load.sent.seconds:9,.0f}/s"
            f", {self.known_share:7.2%} arrived"
            f"   misses offered {self.load.sent.new / self.load.sent.seconds:9,.0f}/s"
            f"   sustained {self.sustained:8,.0f}/s   their delay p50 {middle:7,.2f} ms   p99 {late:7,.2f} ms"
            f"   (overflow {self.overflow:,})"
        )


def delays_ms(arrived: Arrived) -> tuple[float, float]:
    """p50 and p99 from the generator to the sink."""
    return arrived.delays.percentile(0.5) / 1e6, arrived.delays.percentile(0.99) / 1e6


def gaps(mode: Mode, folder: Path) -> dict[str, list[Gaps]]:
    """A fixed load of known flows, with each kind of thread beside it; in turns, printed."""
    found: dict[str, list[Gaps]] = {hold: [] for hold in HOLDS}
    with wires(mode) as network, Sink(network.backends[0]) as sink:
        config = configuration(network, folder)
        for _ in range(ROUNDS):
            for hold, runs in found.items():
                with running(network, [*IN_PROCESS, str(config), hold]) as words:
                    offer(network, sink, RATE, WARM_S)
                    load = offer(network, sink, RATE, SECONDS)
                known = load.known
                p99, late = (each.percentile(0.99) / 1e3 for each in (known.gaps, known.delays))
                runs.append(Gaps(p99, known.largest_gap / 1e3, late, words["held"]["times"], load))
                print(f"  {mode:8} GIL held: {hold:7} {runs[-1]}", flush=True)
    return found


def floods(mode: Mode, folder: Path) -> dict[tuple[str, int], list[Flood]]:
    """Known flows with and without misses beside them, with and without a thread that holds the GIL."""
    cases = [("none", 0), ("none", FLOOD), ("none", TRICKLE), ("asleep", FLOOD), ("asleep", TRICKLE)]
    found: dict[tuple[str, int], list[Flood]] = {case: [] for case in cases}
    with wires(mode) as network, Sink(network.backends[0]) as sink:
        config = configuration(network, folder)
        for _ in range(ROUNDS):
            for (hold, rate), runs in found.items():
                runs.append(_flood(network, sink, config, hold, rate))
                print(f"  {mode:8} GIL held: {hold:7} {runs[-1]}", flush=True)
    return found


def _flood(network: Topology, sink: Sink, config: Path, hold: str, rate: int) -> Flood:
    with running(network, [*IN_PROCESS, str(config), hold]) as words:
        offer(network, sink, RATE, WARM_S)  # the helper admits the known flows
        os.kill(words["pid"], signal.SIGUSR1)
        time.sleep(AFTER_SIGNAL_S)
        load = offer(network, sink, RATE, SECONDS, new_rate=rate)
    engine = words["engine"]
    return Flood(load, engine["misses"], engine["miss_overflow"])


class NewFlows(NamedTuple):
    """Of one run of new flows only."""

    load: Load
    words: dict[str, Any]

    @property
    def rate(self) -> float:
        """Flows/s that the helper admitted, and whose frame arrived."""
        return self.load.new.frames / self.load.sent.seconds

    def __str__(self) -> str:
        engine = self.words["engine"]
        return (
            f"new flows offered {self.load.offered_rate:10,.0f}/s   admitted {self.rate:9,.0f}/s"
            f"   entries {self.words['flows']:,}   receive_lost {engine['receive_lost']:,}"
            f"   misses {engine['misses']:,}"
        )


def new_flows(mode: Mode, folder: Path) -> list[NewFlows]:
    """As many as the generator can send, admitted in C."""
    runs = []
    with wires(mode) as network, Sink(network.backends[0]) as sink:
        config = configuration(network, folder, flow_memory=NEW_MEMORY)
        for _ in range(ROUNDS):
            with running(network, [*IN_PROCESS, str(config), "none"]) as words:
                load = offer(network, sink, 0, NEW_SECONDS, new_rate=UNPACED)
            runs.append(NewFlows(load, words))
            print(f"  {mode:8} {runs[-1]}", flush=True)
    return runs
