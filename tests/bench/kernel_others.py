"""More cases of `python -m tests.bench.kernel`: latency, the AF_XDP engine, and what DSR is for.

Lives here: what is measured beside what. Must not live here: the kernel path at saturation
(kernel_cases.py), words (kernel.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from l4raw.netns import Host, Topology
from l4raw.netns.clients import iperf3
from l4raw.netns.process import environment, tool
from l4raw.netns.servers import iperf3_server

from l4raw.bench.bed import Bed, Setting, bed
from l4raw.bench.measure import measure
from l4raw.bench.turns import take_turns
from l4raw.control.dataplane import AF_XDP, XDP
from l4raw.core.model import Mode
from tests.bench.kernel_cases import SECONDS, Row, filled, of_pairs
from tests.bench.testbed import HERE, running, testbed, up

MOST_ADDED_US = {XDP: 10.0, AF_XDP: 30.0}
LEAST_LOOP = 0.95
IPERF_S = 3
_START_S = 10.0
PORT = 5201
_PAIRS, _LOOP_PAIRS = 10, 20
_HAPROXY = """defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen bench
  bind {here}:{port}
  server b1 {there}:{port}
"""


def latency(folder: Path) -> Iterator[Row]:
    """Added to the bare program's, at a tenth of the highest rate without loss."""
    del folder
    for dataplane, bound in MOST_ADDED_US.items():
        figures = measure(Setting(dataplane=dataplane, arms=1), _PAIRS, None, lambda text, share: None)
        if not figures["latency"]:
            yield Row(
                f"{dataplane}: added latency", "no rate without loss", "", "", float("inf"), bound, True
            )
            continue
        low, _ = figures["latency"]
        added, own, bare = low["added_us"], low["us"], low["bare_us"]
        yield Row(
            f"dsr-l2, {dataplane}, added latency at {low['rate'] / 1e6:.2f} M/s, 10 % of the most,"
            f" p50; p99 {added['p99']:.1f} us, p99.9 {added['p99.9']:.1f} us",
            f"{own['p50']:.1f} us",
            f"{bare['p50']:.1f} us",
            f"{added['p50']:.1f} us more",
            added["p50"],
            bound,
            at_most=True,
        )


def engine(folder: Path) -> Iterator[Row]:
    """The AF_XDP engine and the bare AF_XDP loop, each in a network of its own; known flows."""
    for mode in Mode:
        with filled(Setting(mode, AF_XDP), folder) as (ours, _), bed(Setting()) as theirs:
            network = theirs.network
            argv = [
                str(HERE / "xdp_bare.py"),
                *network.interfaces,
                network.client.mac,
                network.backends[0].mac,
            ]
            with running(network, argv):
                pairs = take_turns(partial(_flooded, ours), partial(_flooded, theirs), _LOOP_PAIRS)
        yield of_pairs(f"{mode}, af_xdp, two arms, 1,000 flows, of the bare AF_XDP loop", pairs, LEAST_LOOP)


def _flooded(each: Bed) -> float:
    return each.flood(SECONDS).rate


class _Carried(NamedTuple):
    """A download."""

    goodput: float
    """bit/s at the client."""
    through: int
    """Bytes that the balancer's interfaces have received, and sent."""
    received: float
    """Bytes at the client, without headers."""

    def row(self, name: str) -> Row:
        """No bound: it is the point of DSR."""
        share = self.through / max(1.0, self.received)
        gbit = f"{self.goodput / 1e9:.1f} Gbit/s at the client"
        through = f"{self.through / 1e6:,.0f} MB through the balancer"
        return Row(name, gbit, through, f"{share:.3f} bytes there for one at the client", share, 0)


def point_of_dsr(folder: Path) -> Iterator[Row]:
    """One connection, backend to client; and through HAProxy, which ends the client's connection."""
    for mode in (Mode.DSR_L2, Mode.NAT):
        with testbed(mode, folder) as (network, config):
            with running(network, up(config)):
                yield _download(network, network.vip).row(f"{mode}, raw, download by iperf3")
    if not tool("haproxy"):
        yield Row("HAProxy in TCP mode", "not installed", "", "", 0, 0)
        return
    with testbed(Mode.NAT, folder) as (network, _), _haproxy(network, folder):
        yield _download(network, network.balancer.address).row("HAProxy in TCP mode, download by iperf3")


def _download(network: Topology, address: str) -> _Carried:
    with iperf3_server(network.backends[0]):
        before = _bytes(network.balancer)
        rate = iperf3(network.client, address, IPERF_S, reverse=True)
        return _Carried(rate, _bytes(network.balancer) - before, rate * IPERF_S / 8)


def _bytes(host: Host) -> int:
    """Received and sent, by all interfaces but lo."""
    lines = Path(f"/proc/{host.pid}/net/dev").read_text().splitlines()[2:]
    fields = [line.split() for line in lines if not line.strip().startswith("lo:")]
    return sum(int(each[1]) + int(each[9]) for each in fields)


@contextmanager
def _haproxy(network: Topology, folder: Path) -> Iterator[None]:
    file = folder / "haproxy.cfg"
    here, there = network.balancer.address, network.backends[0].address
    file.write_text(_HAPROXY.format(here=here, there=there, port=PORT))
    process = network.balancer.popen(["haproxy", "-q", "-db", "-f", str(file)], env=environment())
    deadline = time.monotonic() + _START_S
    while not network.balancer.run(["ss", "-Hltn", f"sport = :{PORT}"]).stdout.strip():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("haproxy did not begin to listen: its words are above")
    yield


GROUPS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "af-xdp": engine,
    "latency": latency,
    "point-of-dsr": point_of_dsr,
}
"""By name, in the order of the table."""
