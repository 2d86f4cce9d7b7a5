"""One load from a generator of its own: for measurements that start everything anew for each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from l4raw.netns import Topology

from l4raw.bench.frames import KNOWN, NEW
from l4raw.bench.generator import BURST, Order, Stream
from l4raw.bench.load import Load, generator_of, run
from l4raw.bench.sink import Sink
from tests.bench.testbed import GENERATOR_CPU

__all__ = ["ROOT", "UNPACED", "Load", "offer"]

UNPACED: Final = 20_000_000
"""Frames/s: more than the generator can make with a time stamp in each."""
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


def two_streams(
    rate: float, seconds: float, flows: int, new_rate: float = 0, burst: int = BURST, new_frames: int = 1
) -> Order:
    """`rate` frames/s of known flows, and `new_rate` of new ones, `new_frames` of each; a rate may be 0."""
    streams = [Stream(KNOWN, rate, flows), Stream(NEW, new_rate, frames=new_frames)]
    return Order([stream for stream in streams if stream.rate], seconds, burst=burst)
