"""One load from a generator of its own: for measurements that start everything anew for each."""

from __future__ import annotations

from pathlib import Path

from l4raw.netns import Topology

from l4raw.bench.generator import BURST
from l4raw.bench.load import UNPACED, Load, generator_of, run, two_streams
from l4raw.bench.sink import Sink
from tests.bench.testbed import GENERATOR_CPU

__all__ = ["ROOT", "UNPACED", "Load", "offer"]

ROOT = Path(__file__).resolve().parents[2]


def offer(
    network: Topology,
    sink: Sink,
    rate: float,
    seconds: float = 2.0,
    flows: int = 1000,
    new_rate: float = 0,
    burst: int = BURST,
    new_frames: int = 1,
) -> Load:
    """Send to the VIP, by way of the balancer's MAC address, and wait until the sink is quiet.

    Arguments are those of two_streams(). Raises RuntimeError with the generator's last words.
    """
    order = two_streams(rate, seconds, flows, new_rate, burst, new_frames)
    with generator_of(network, GENERATOR_CPU) as generator:
        return run(network, sink, generator, order)
