"""What is measured with traffic: small frames, the stages of a frame, throughput.

Whatever is compared is measured in turns (A B A B ...), so that a machine that changes its pace changes both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from l4raw.netns import Topology
from l4raw.netns.clients import iperf3
from l4raw.netns.servers import iperf3_server

from l4raw.core.model import Mode
from tests.bench.testbed import HERE, Load, offer, running, testbed, up

ROUNDS = 3
LOADS = range(60_000, 250_000, 10_000)
"""Frames/s, until one is not carried."""
SATURATING = 10_000_000
"""Frames/s: more than the generator can send, so it sends what it can."""
BACKLOG_S = 0.02
"""A load is not carried if more of it than this waits in the receive queue at the end. Some 20,000 frames fit
there, so that a load 10 % too high loses none for as long as a run lasts."""
IPERF_SECONDS = 3


class Overload(NamedTuple):
    """Saturated: the receive queue is never empty."""

    balancer: Load
    """Of ROUNDS, the one with the median rate; likewise:"""
    bare: Load
    ratio: float
    """Balancer to bare loop, median over the pairs."""
    stages: dict[str, float]
    """ns a frame, medians."""


class Throughput(NamedTuple):
    """TCP, Gbit/s, medians of ROUNDS."""

    balancer: float
    kernel: float
    ratio: float
    """Median over the pairs."""


def passed(load: Load, rate: int) -> bool:
    """Whether a load of `rate` was offered, and forwarded without a drop, and not just stored."""
    return load.offered_rate > 0.99 * rate and load.dropped == 0 and load.queued <= rate * BACKLOG_S


def carried(mode: Mode, folder: Path) -> int:
    """The highest load at and below which every run of every load passed; prints each load."""
    best = 0
    with testbed(mode, folder) as (network, config), running(network, up(config)):
        for rate in LOADS:
            runs = [offer(network, rate) for _ in range(ROUNDS)]
            good = all(passed(load, rate) for load in runs)
            drops = ", ".join(str(load.dropped) for load in runs)
            queued = ", ".join(str(load.queued) for load in runs)
            print(
                f"  {mode:8} offered {median(load.offered_rate for load in runs):9,.0f}/s"
                f"   forwarded {median(load.rate for load in runs):9,.0f}/s   dropped {drops}"
                f"   queued {queued}   {'carried' if good else 'not carried'}"
            )
            if not good:
                break
            best = rate
    return best


def overload(mode: Mode, folder: Path) -> Overload:
    """Offer more than anything can forward: to the balancer, the bare loop, the balancer with a clock."""
    loads, bare, stages = [], [], []
    with testbed(mode, folder) as (network, config):
        loop = [str(HERE / "bare.py"), *network.interfaces, network.backends[0].mac]
        for _ in range(ROUNDS):
            load, words = _saturate(network, up(config))
            loads.append(load)
            _print_overload(f"{mode} l4raw", load, words["counters"]["engine"]["receive_lost"])
            load, words = _saturate(network, loop)
            bare.append(load)
            _print_overload(f"{mode} bare loop", load, words["receive_lost"])
            words = _saturate(network, [str(HERE / "stages.py"), str(config)])[1]
            stages.append(words["stages"])
    return Overload(
        _median(loads),
        _median(bare),
        median(load.rate / other.rate for load, other in zip(loads, bare, strict=True)),
        {step: median(each[step] for each in stages) for step in stages[0]},
    )


def _saturate(network: Topology, argv: list[str]) -> tuple[Load, dict[str, Any]]:
    with running(network, argv) as words:
        load = offer(network, SATURATING)
    return load, words


def _median(loads: list[Load]) -> Load:
    return sorted(loads, key=lambda load: load.rate)[len(loads) // 2]


def _print_overload(who: str, load: Load, lost: int) -> None:
    print(
        f"  {who:16} offered {load.offered_rate:9,.0f}/s   forwarded {load.rate:9,.0f}/s"
        f"   dropped {load.dropped:9,} of {load.sent:,} (receive_lost {lost:,})"
    )


def throughput(mode: Mode, folder: Path, reverse: bool = False, dataplane: str = "raw") -> Throughput:
    """iperf3, one connection: to the VIP through l4raw; to the backend through the same host's kernel."""
    balanced, routed = [], []
    way = "backend to client" if reverse else "client to backend"
    with testbed(mode, folder, dataplane) as (network, config):
        backend = network.backends[0]
        for _ in range(ROUNDS):
            with running(network, up(config)), iperf3_server(backend):
                balanced.append(iperf3(network.client, network.vip, IPERF_SECONDS, reverse=reverse) / 1e9)
            with _kernel_routes(network), iperf3_server(backend):
                routed.append(iperf3(network.client, backend.address, IPERF_SECONDS, reverse=reverse) / 1e9)
            rates = f"l4raw ({dataplane}) {balanced[-1]:5.1f}   kernel routing {routed[-1]:5.1f}"
            print(f"  {mode:8} {way}, Gbit/s   {rates}")
    ratio = median(ours / kernels for ours, kernels in zip(balanced, routed, strict=True))
    return Throughput(median(balanced), median(routed), ratio)


@contextmanager
def _kernel_routes(network: Topology) -> Iterator[None]:
    """The balancer's host as a router: frames take the same way, and its kernel forwards them."""
    network.client.ip(f"route replace {network.backends[0].address} via {network.balancer.address}")
    network.balancer.sysctl("net.ipv4.ip_forward", 1)
    yield
    network.balancer.sysctl("net.ipv4.ip_forward", 0)
