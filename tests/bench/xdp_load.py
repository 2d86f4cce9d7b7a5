"""Offer a load to whatever forwards from the client to the backend, and say what became of it.

    with wires() as network, Sink(network.backends[0]) as sink:
        print(offer(network, sink, 500_000, seconds=2))

Lives here: `offer` and `Load`. Must not live here: the program under test, and what is made of the figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from l4raw.netns import Host, Topology

from tests.bench.testbed import GENERATOR_CPU
from tests.bench.xdp_generator import Sent
from tests.bench.xdp_sink import Arrived, Sink

ROOT = Path(__file__).resolve().parents[2]
BURST = 64
"""Frames that the generator catches up with at once, when it was late."""
UNPACED = 20_000_000
"""Frames/s: more than the generator can make."""


class Load(NamedTuple):
    """One run, in frames."""

    sent: Sent
    delivered: int
    """That reached the balancer's interface; the others found the ring of the veth full, 256 frames."""
    known: Arrived
    new: Arrived

    @property
    def offered(self) -> int:
        """That the generator sent."""
        return self.sent.known + self.sent.new

    @property
    def arrived(self) -> int:
        """That reached the sink."""
        return self.known.frames + self.new.frames

    @property
    def lost(self) -> int:
        """Between the generator and the sink, the first veth included."""
        return self.offered - self.arrived

    @property
    def offered_rate(self) -> float:
        """Frames/s."""
        return self.offered / self.sent.seconds

    @property
    def rate(self) -> float:
        """Frames/s that arrived; a queue of a few thousand at the end counts too."""
        return self.arrived / self.sent.seconds

    def __str__(self) -> str:
        seen = self.known if self.known.frames else self.new
        gap, largest = seen.gaps.percentile(0.99) / 1e3, seen.largest_gap / 1e3
        middle, delay = (seen.delays.percentile(share) / 1e3 for share in (0.5, 0.99))
        return (
            f"offered {self.offered_rate:,.0f}/s (left out {self.sent.left_out:,}),"
            f" arrived {self.rate:,.0f}/s, lost {self.lost:,}\n"
            f"    gap p99 {gap:,.1f} us, largest {largest:,.0f} us;"
            f" delay p50 {middle:,.1f} us, p99 {delay:,.1f} us"
        )


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

    `rate` frames/s of `flows` known flows, each in turn, and `new_rate` frames/s of new ones, `new_frames` of
    each; either rate may be 0. `burst`: see xdp_generator.py. Raises RuntimeError with the generator's last
    words.
    """
    numbers = map(str, (rate, seconds, flows, new_rate, burst, new_frames))
    argv = ["tests.bench.xdp_generator", "eth0", network.balancer.mac, network.vip, *numbers]
    command = ["taskset", "-c", str(GENERATOR_CPU), sys.executable, "-m", *argv]
    sink.reset()
    before = rx_packets(network.balancer)
    process = network.client.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    said, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"generator: {errors.strip() or f'exit code {process.returncode}'}")
    known, new = sink.read_when_quiet()
    return Load(Sent(**json.loads(said)), rx_packets(network.balancer) - before, known, new)


def rx_packets(host: Host, interface: str = "eth0") -> int:
    """All frames that an interface has received, a few of ARP included."""
    lines = Path(f"/proc/{host.pid}/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.strip().startswith(f"{interface}:"))
