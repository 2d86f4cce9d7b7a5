"""A network with a generator at one end and a sink at the other, and the configuration of who is between.

Lives here: what is offered to whom, and how its flow table gets its flows. Must not live here: in which order
candidates take turns (turns.py), and what is made of the figures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from l4raw.bench.frames import KNOWN, NEW, PORT
from l4raw.bench.generator import Generator, Order, Stream
from l4raw.bench.load import Load, alone_on, generator_of, run
from l4raw.bench.sink import Sink
from l4raw.bench.subject import Subject
from l4raw.bench.wires import BACKENDS, SNATS, one_wire, wires
from l4raw.control.dataplane import AF_XDP, RAW, XDP
from l4raw.core.model import Mode
from l4raw.core.room import buckets_in, capacity_of
from l4raw.netns import Topology
from l4raw.wire import gue, ipv4

GENERATOR_CPU, BALANCER_CPU = (2 * sorted(os.sched_getaffinity(0)))[:2]
"""The first two that this process may have; measure.py refuses to measure on one."""
PROTOCOLS: Final = {"udp": ipv4.UDP, "tcp": ipv4.TCP}
IN_FRONT: Final = {Mode.DSR_IPIP: ipv4.LENGTH, Mode.DSR_GUE: ipv4.LENGTH + gue.LENGTH}
"""Bytes of a tunnel's headers."""
ALL, CHANGES = "track", "track-changes"
"""Which flows have an entry: the key `flows` of a service."""
MOST_FULLNAT: Final = len(SNATS) * len(BACKENDS) * (65_536 - 1024)
"""Flows that have ports."""
_MIB: Final = 1 << 20
_FILL_RATE: Final = 400_000
"""Frames/s of new flows, where a flood would be too fast: not the kernel path begins them all."""
_FILL_FLOOD: Final = 800_000
"""Flows/s that a flood begins at least; on a slower machine it takes more rounds."""
_ROUNDS: Final = 60
_SHORTEST_S: Final = 0.1


class FillError(RuntimeError):
    """The flow table did not get its flows."""


@dataclass(frozen=True)
class Setting:
    """What is measured."""

    mode: Mode = Mode.DSR_L2
    dataplane: str = XDP
    protocol: str = "udp"
    flows: int = 1000
    """Known ones."""
    arms: int = 2
    remembers: str = ALL
    memory: str = ""
    """Of the flow table, as in the configuration; else as much as is needed for the flows."""

    @property
    def entries(self) -> int:
        """Of the flow table, when all flows are known."""
        if self.remembers == CHANGES:
            return 0
        return self.flows * (2 if self.mode.is_nat else 1)

    def configuration(self, network: Topology) -> str:
        """The text of an l4raw.toml."""
        lb = {
            "interfaces": network.interfaces,
            "dataplane": self.dataplane,
            "flow_memory": self.memory or memory_for(self.flows, self.mode),
            "ring_seed": "bench",
        }
        service: dict[str, object] = {
            "name": "bench",
            "vip": f"{network.vip}:{PORT}/{self.protocol}",
            "mode": str(self.mode),
            "scheduler": "maglev",
        }
        if self.protocol == "tcp" and not self.mode.is_nat:
            service["flows"] = self.remembers
        backends = [f'{{ name = "b{n}", address = "{each}" }}' for n, each in enumerate(_backends(network))]
        lines = ["[lb]", *_toml(lb), "[[service]]", *_toml(service), f"backends = [{', '.join(backends)}]"]
        lines.append('check = { type = "none" }')
        if self.mode is Mode.FULLNAT:
            pools = [f'{{ address = "{each}" }}' for each in SNATS]
            lines.append(f"snat = [{', '.join(pools)}]")
        return "\n".join(lines) + "\n"


def _toml(table: Mapping[str, object]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def _backends(network: Topology) -> list[str]:
    """More than one only for fullnat, whose ports are a backend's: else each is as good as one."""
    if network.mode != Mode.FULLNAT:
        return [network.backends[0].address]
    return list(BACKENDS)


def memory_for(flows: int, mode: Mode) -> str:
    """For the flow table: a power of two.

    Under NAT a flow has two entries, and half of the table stays free: beyond that, a datagram's answer does
    not make its flow an established one (l4raw/core/states.py).
    """
    entries, mib = flows * (4 if mode.is_nat else 1), 1
    while capacity_of(buckets_in(mib * _MIB)) < entries:
        mib *= 2
    return f"{mib}MiB"


@dataclass
class Bed:
    """A network that is up, with a generator and sinks."""

    setting: Setting
    network: Topology
    sink: Sink
    generator: Generator
    _next: int = 0
    """The flow that the next flood begins with: the one after the last one's last."""

    def run(self, order: Order, bare: bool = False) -> Load:
        """Offer a load. `bare`: to the bare program, which puts nothing in front of a frame."""
        return run(self.network, self.sink, self.generator, order, 0 if bare else self.shift)

    @property
    def shift(self) -> int:
        """Bytes in front of a frame that the balancer has sent."""
        return IN_FRONT.get(self.setting.mode, 0)

    def flood(self, seconds: float) -> Load:
        """As much as the generator can, of known flows; it goes on where the last flood ended."""
        stream = Stream(KNOWN, flows=self.setting.flows, start=self._next)
        load = self.run(Order([stream], seconds, True, self.protocol))
        self._next = (self._next + load.sent.known) % self.setting.flows
        return load

    def known(self, rate: float, seconds: float, bare: bool = False) -> Load:
        """So many frames/s of known flows, with time stamps. `bare`: see `run`."""
        return self.run(Order([Stream(KNOWN, rate, self.setting.flows)], seconds, False, self.protocol), bare)

    def new(self, seconds: float, start: int = 0) -> Load:
        """As many new flows as the generator can, two frames each: of UDP datagrams, of TCP a SYN and an ACK.

        `start`: how many there were before.
        """
        stream = Stream(NEW, frames=2, opens=True, start=start)
        return self.run(Order([stream], seconds, True, self.protocol))

    @property
    def protocol(self) -> int:
        """Its number."""
        return PROTOCOLS[self.setting.protocol]

    def fill(self, subject: Subject) -> dict[str, Any]:
        """Have the balancer admit all flows; its counters then.

        By the generator: each flow's first two frames, answered under NAT. Raises FillError.
        """
        setting, before = self.setting, -1
        for _ in range(_ROUNDS):
            if setting.mode.is_nat:
                self._offer_with_answers()
            else:
                stream = Stream(KNOWN, flows=setting.flows, frames=2, opens=True)
                seconds = max(_SHORTEST_S, setting.flows / _FILL_FLOOD)
                if setting.dataplane == XDP:
                    self.run(Order([stream], seconds, True, self.protocol))
                else:
                    self._paced(stream)
            words = subject.count()
            if words["flows"] >= setting.entries and self._all_are_known(subject):
                return words
            if words["flows"] == before < setting.entries:
                break  # no more will come
            before = words["flows"]
        raise FillError(f"the flow table got {words['flows']:,} of {setting.entries:,} entries")

    def _paced(self, stream: Stream) -> None:
        rate = _FILL_RATE if self.setting.dataplane != RAW else _FILL_RATE // 20
        seconds = max(_SHORTEST_S, 1.1 * stream.frames * stream.flows / rate)
        self.run(Order([stream._replace(rate=rate)], seconds, False, self.protocol))

    def _offer_with_answers(self) -> None:
        """Twice: the backend's answer comes between."""
        self.sink.answers = True
        for opens in (True, False):
            self._paced(Stream(KNOWN, flows=self.setting.flows, opens=opens))
        self.sink.answers = False
        self.sink.reset()

    def _all_are_known(self, subject: Subject) -> bool:
        """Whether the kernel path takes all frames of known flows; of another dataplane nobody asks."""
        if self.setting.dataplane != XDP:
            return True
        before = subject.count()["engine"]["kernel_forwarded"]
        load = self.known(_FILL_RATE, max(_SHORTEST_S, 1.1 * self.setting.flows / _FILL_RATE))
        taken = subject.count()["engine"]["kernel_forwarded"] - before
        return bool(load.arrived and taken >= load.arrived)


@contextmanager
def bed(setting: Setting, cpu: int = GENERATOR_CPU) -> Iterator[Bed]:
    """Build it, yield it, take it down. `cpu`: the generator's."""
    with ExitStack() as stack:
        build = one_wire if setting.arms == 1 else wires
        network = stack.enter_context(build(setting.mode))
        receive_what_is_redirected(network)
        sink = stack.enter_context(Sink(network.backends[0]))
        if network.client is not network.backends[0]:  # what comes back ends somewhere too
            stack.enter_context(Sink(network.client)).reset(timed=False)
        generator = stack.enter_context(generator_of(network, cpu))
        yield Bed(setting, network, sink, generator)


def receive_what_is_redirected(network: Topology) -> None:
    """NAPI at both ends of the outer wire, also without a program: the generator redirects, and so do we."""
    for host in (network.client, network.balancer):
        host.run(["ethtool", "-K", "eth0", "gro", "on"])


@contextmanager
def subject_of(bed: Bed, folder: Path, cpu: int = BALANCER_CPU) -> Iterator[Subject]:
    """The balancer of this setting, not filled yet. `folder`: for its configuration.

    Its queue's thread is on `cpu`. Under af_xdp Python's threads are on the generator's: they look at flows
    every 10 ms, and would take that time from it.
    """
    config = folder / "bench.toml"
    config.write_text(bed.setting.configuration(bed.network))
    pinned, other = alone_on(cpu), GENERATOR_CPU if bed.setting.dataplane == AF_XDP else None
    network = bed.network
    with Subject(network.balancer, config, network.backends[0].mac, pinned, other) as subject:
        yield subject
