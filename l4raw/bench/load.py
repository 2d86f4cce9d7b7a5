"""Offer a load to whatever forwards from the client to the backend, and say what became of it.

    with wires() as network, Sink(network.backends[0]) as sink, generator_of(network, cpu=0) as generator:
        print(run(network, sink, generator, Order([Stream(rate=500_000)], 2)))

Lives here: `run` and `Load`. Must not live here: the program under test, and what is made of the figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from l4raw.bench.frames import PORT
from l4raw.bench.generator import Generator, Order, Sent
from l4raw.bench.sink import QUIET_S, Arrived, Sink

if TYPE_CHECKING:
    from l4raw.netns import Host, Topology

FLOOD_QUIET_S: Final = 0.02


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


def generator_of(network: Topology, cpu: int, port: int = PORT) -> Generator:
    """One that sends to the VIP, by way of the balancer's MAC address, on this CPU."""
    return Generator(network.client, network.balancer.mac, network.vip, port, alone_on(cpu))


def alone_on(cpu: int) -> list[str]:
    """Words in front of a command that has this CPU, ahead of other jobs: a measurement is short."""
    return ["nice", "-n", "-20", "taskset", "-c", str(cpu)]


def run(network: Topology, sink: Sink, generator: Generator, order: Order, shift: int = 0) -> Load:
    """Have it sent, and wait until the sink is quiet. Raises RuntimeError with the generator's last words.

    `shift`: bytes in front of a frame when it arrives.
    """
    sink.reset(timed=not order.flood, shift=shift)
    before = rx_packets(network.balancer)
    sent = generator.send(order)
    known, new = sink.read_when_quiet(FLOOD_QUIET_S if order.flood else QUIET_S)
    return Load(sent, rx_packets(network.balancer) - before, known, new)


def rx_packets(host: Host, interface: str = "eth0") -> int:
    """All frames that an interface has received, a few of ARP included."""
    lines = Path(f"/proc/{host.pid}/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.strip().startswith(f"{interface}:"))
