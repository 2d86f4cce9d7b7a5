"""The AF_XDP engine and the bare AF_XDP loop in turns, each offered more than it can forward.

Lives here: the runs, and what became of every frame. Must not live here: words and bounds (af_xdp.py).
"""

from __future__ import annotations

from pathlib import Path
from statistics import quantiles
from typing import Any, Final, NamedTuple

from l4raw.netns import Topology

from l4raw.bench.frames import PORT
from l4raw.bench.sink import Sink
from l4raw.bench.wires import wires
from l4raw.core.model import Mode
from tests.bench import xdp_baseline
from tests.bench.testbed import HERE, running, up
from tests.bench.xdp_load import UNPACED, Load, offer

PAIRS: Final = 10
SECONDS: Final = 1.0
IN_PROCESS: Final = ("-m", "tests.bench.in_process")
LOST: Final = ("receive_lost", "passed", "miss_overflow", "return_dropped")
"""Counters of the engine that are frames which went nowhere."""


class Run(NamedTuple):
    """One load, and what whoever forwarded said of it."""

    load: Load
    drops: dict[str, int]
    """Frames by cause; the sum is what was lost."""
    share: float
    """Of the time in which its thread could have run, that in which it did."""

    @property
    def ns(self) -> float:
        """Of its thread's CPU time a frame: other jobs on the CPU change it less than the rate."""
        return 1e9 * self.share * self.load.sent.seconds / max(1, self.load.arrived)

    def __str__(self) -> str:
        drops = ", ".join(f"{cause} {count:,}" for cause, count in self.drops.items() if count) or "none"
        return (
            f"offered {self.load.offered_rate:10,.0f}/s   forwarded {self.load.rate:9,.0f}/s"
            f"   {self.ns:4.0f} ns   CPU {self.share:4.0%}   drops: {drops}"
        )


class Pairs(NamedTuple):
    """Of one mode."""

    balancer: list[Run]
    bare: list[Run]
    socket_mode: str
    """Copy or zero-copy, of both."""

    @property
    def ratios(self) -> list[float]:
        """Balancer to bare loop, of each pair: frames/s."""
        return [one.load.rate / other.load.rate for one, other in zip(self.balancer, self.bare, strict=True)]

    @property
    def ratios_of_ns(self) -> list[float]:
        """Likewise: frames per second of the thread's CPU time."""
        return [other.ns / one.ns for one, other in zip(self.balancer, self.bare, strict=True)]


def spread(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def middle_run(runs: list[Run]) -> Run:
    """The one with the median rate."""
    return sorted(runs, key=lambda run: run.load.rate)[len(runs) // 2]


def configuration(network: Topology, folder: Path, **lb: object) -> Path:
    """A file for one service, the generator's port, over AF_XDP."""
    config = folder / "af_xdp.toml"
    config.write_text(network.config_toml(f"{PORT}/udp", dataplane="af_xdp", lb={"ring_seed": "bench", **lb}))
    return config


def measure(mode: Mode, folder: Path) -> Pairs:
    """PAIRS pairs, printed as they come."""
    ours, bares = [], []
    with wires(mode) as network, Sink(network.backends[0]) as sink:
        config = configuration(network, folder)
        loop = [str(HERE / "xdp_bare.py"), *network.interfaces, network.client.mac, network.backends[0].mac]
        for _ in range(PAIRS):
            load, share, words = _saturate(network, sink, up(config))
            ours.append(Run(load, _drops(load, words["counters"]), share))
            print(f"  {mode:8} l4raw      {ours[-1]}", flush=True)
            load, share, words = _saturate(network, sink, loop)
            bares.append(Run(load, xdp_baseline.Run(load, words).drops(), share))
            print(f"  {mode:8} bare loop  {bares[-1]}", flush=True)
        bare_mode = words["ports"][0]["mode"]
        with running(network, [*IN_PROCESS, str(config), "none"]) as words:
            pass
    assert words["mode"] == bare_mode, f"l4raw: {words['mode']} mode, the bare loop: {bare_mode} mode"
    return Pairs(ours, bares, bare_mode)


def _saturate(network: Topology, sink: Sink, argv: list[str]) -> tuple[Load, float, dict[str, Any]]:
    with running(network, argv) as words:
        before = _times(words["pid"])
        load = offer(network, sink, UNPACED, SECONDS)
        share = _share(before, _times(words["pid"]))
    return load, share, words


def _drops(load: Load, counters: dict[str, Any]) -> dict[str, int]:
    found = {name: counters["engine"][name] for name in LOST}
    found |= {name: count for name, count in counters["verdicts"].items() if name.startswith("drop_")}
    found["first wire"] = max(0, load.offered - load.delivered)
    found["last wire, or unknown"] = load.lost - sum(found.values())
    return found


def _times(process: int) -> dict[str, tuple[int, int]]:
    """Of each thread: ns that it ran, and ns that it could have run and had no CPU."""
    found = {}
    for folder in Path(f"/proc/{process}/task").iterdir():
        ran, waited, _ = (folder / "schedstat").read_text().split()
        found[folder.name] = int(ran), int(waited)
    return found


def _share(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float:
    """Of the thread that ran most, which is the one that forwards."""
    ran, waited = max(
        (now[0] - before.get(thread, (0, 0))[0], now[1] - before.get(thread, (0, 0))[1])
        for thread, now in after.items()
    )
    return ran / (ran + waited)
