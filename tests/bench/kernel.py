"""The kernel path beside what it could at most do, and beside the kernel's own NAT.

    python -m tests.bench.kernel [PAIRS]

Each case is run in turns with its baseline: a bare XDP program that writes two MAC addresses and sends
(XDP_TX or a redirect), or nftables DNAT in the kernel's forwarding. Lives here: the cases, the runs and the
table. Root, and two CPUs of a machine that does nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from l4raw.netns import NO_CHECK, Topology
from l4raw.netns.process import temporary_folder

from l4raw.core.model import Mode
from tests.bench.load_frame import PORT
from tests.bench.pairs import spread
from tests.bench.run import machine
from tests.bench.testbed import running
from tests.bench.wires import BACKEND, INNER, one_wire, wires
from tests.bench.xdp_load import UNPACED, Load, offer
from tests.bench.xdp_sink import Sink

PAIRS: Final = 10
SECONDS: Final = 1.0
MEMORY: Final = {1_000: "1MiB", 100_000: "32MiB", 1_000_000: "256MiB"}
"""Of the flow table, by flows."""
NEW_MEMORY, NEW_FRAMES, LEAST_NEW = "1GiB", 2, 2_000_000
"""Room for a second of new flows; datagrams of each, as it is half-open until the second; and flows/s."""
_DNAT: Final = """table ip bench {{
  chain in {{ type nat hook prerouting priority dstnat; ip daddr {vip} udp dport {port} dnat to {backend}; }}
}}"""


_CONNTRACK_MAX: Final = Path("/proc/sys/net/netfilter/nf_conntrack_max")


class Case(NamedTuple):
    """What is compared."""

    name: str
    mode: Mode
    flows: int
    baseline: str
    """`tx`, `redirect` or `nftables`."""
    least: float
    """Of the baseline's rate: the bound of the project."""


CASES: Final = (
    Case("one arm, of XDP_TX", Mode.DSR_L2, 1_000, "tx", 0.70),
    Case("one arm, of XDP_TX", Mode.DSR_L2, 100_000, "tx", 0.42),
    Case("one arm, of XDP_TX", Mode.DSR_L2, 1_000_000, "tx", 0.33),
    Case("two arms, of a redirect", Mode.NAT, 1_000, "redirect", 0),
    Case("two arms, of nftables", Mode.NAT, 1_000, "nftables", 3),
    Case("two arms, of nftables", Mode.NAT, 100_000, "nftables", 4),
    Case("two arms, of nftables", Mode.NAT, 1_000_000, "nftables", 4),
)


class Pair(NamedTuple):
    """One run of each."""

    ours: Load
    theirs: Load
    by_kernel: float
    """Of the frames that we sent, those that the kernel path sent."""

    @property
    def ratio(self) -> float:
        """Of the frames/s that arrived."""
        return self.ours.rate / max(1, self.theirs.rate)


def measure(case: Case, pairs: int, folder: Path) -> list[Pair]:
    """Printed as they come."""
    found = []
    with _topology(case) as network, Sink(network.backends[0]) as sink:
        _receive_what_is_redirected(network)
        config = _configuration(network, MEMORY[case.flows], folder)
        baseline = _baseline(network, case)
        for _ in range(pairs):
            argv = ["-m", "tests.bench.kernel_up", str(config), str(case.flows)]
            with running(network, argv) as words:
                ours = offer(network, sink, UNPACED, SECONDS, case.flows)
            with baseline():
                theirs = offer(network, sink, UNPACED, SECONDS, case.flows)
            sent = words["verdicts"].get("forward", 0)
            found.append(Pair(ours, theirs, words["engine"]["kernel_forwarded"] / max(1, sent)))
            print(f"  {_said(found[-1])}", flush=True)
    return found


def new_flows(runs: int, folder: Path) -> list[float]:
    """Flows/s that the kernel path alone admits under DSR, and remembers."""
    found = []
    with wires() as network, Sink(network.backends[0]) as sink:
        _receive_what_is_redirected(network)
        config = _configuration(network, NEW_MEMORY, folder)
        for _ in range(runs):
            with running(network, ["-m", "tests.bench.kernel_up", str(config), "0"]) as words:
                load = offer(network, sink, 0, SECONDS, new_rate=UNPACED, new_frames=NEW_FRAMES)
            made, all_sent = words["made_by_kernel"], words["verdicts"].get("forward", 0)
            found.append(made / load.sent.seconds)
            print(
                f"  {made:,} flows by the kernel path, {load.rate:,.0f} of {load.offered_rate:,.0f} frames/s,"
                f" {words['engine']['kernel_forwarded']:,} of {all_sent:,} sent by it",
                flush=True,
            )
    return found


def _said(pair: Pair) -> str:
    ours, theirs, share = pair
    return (
        f"l4raw {ours.rate:10,.0f}/s of {ours.offered_rate:10,.0f}/s ({share:.1%} by the kernel path)"
        f"   baseline {theirs.rate:10,.0f}/s of {theirs.offered_rate:10,.0f}/s   {pair.ratio:.2f}"
    )


def _receive_what_is_redirected(network: Topology) -> None:
    """NAPI at both ends of the outer wire, also without a program: the generator redirects, and so do we."""
    for host in (network.client, network.balancer):
        host.run(["ethtool", "-K", "eth0", "gro", "on"])


def _topology(case: Case) -> AbstractContextManager[Topology]:
    return one_wire() if case.baseline == "tx" else wires(case.mode)


def _configuration(network: Topology, memory: str, folder: Path) -> Path:
    config = folder / "kernel.toml"
    lb = {"ring_seed": "bench", "flow_memory": memory}
    config.write_text(network.config_toml(f"{PORT}/udp", dataplane="xdp", check=NO_CHECK, lb=lb))
    return config


def _baseline(network: Topology, case: Case) -> Callable[[], AbstractContextManager[Any]]:
    if case.baseline == "nftables":
        return partial(_nftables, network)
    out, source = network.interfaces[-1], network.balancer.links[-1].mac
    argv = ["eth0", out, network.backends[0].mac, source, case.baseline]
    return partial(running, network, ["-m", "tests.bench.kernel_bare", *argv])


@contextmanager
def _nftables(network: Topology) -> Iterator[None]:
    """The kernel forwards and translates; connection tracking has room for all flows."""
    balancer, backend = network.balancer, BACKEND.addresses[0].partition("/")[0]
    with ExitStack() as undo:
        # Of the whole machine: no other namespace may write it.
        undo.callback(_CONNTRACK_MAX.write_text, _CONNTRACK_MAX.read_text())
        _CONNTRACK_MAX.write_text("4000000")
        for key, value in (
            ("net.ipv4.ip_forward", 1),
            ("net.netfilter.nf_conntrack_udp_timeout", 600),
        ):
            balancer.sysctl(key, value)
        balancer.run(["nft", _DNAT.format(vip=network.vip, port=PORT, backend=backend)])
        undo.callback(balancer.run, ["nft", "delete table ip bench"])
        undo.callback(balancer.sysctl, "net.ipv4.ip_forward", 0)
        balancer.ip(f"neigh replace {backend} lladdr {BACKEND.mac} dev {INNER.interface}")
        yield


def main() -> int:
    """Measure and print; 1 if a bound is missed."""
    if os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        raise SystemExit("make bench needs root, to make network namespaces, and two CPUs")
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    print(f"kernel path: {machine()}")
    lines, met = [], True
    with temporary_folder("l4raw-bench-") as folder:
        for case in CASES:
            print(f"{case.mode}, {case.name}, {case.flows:,} flows", flush=True)
            found = measure(case, pairs, folder)
            middle = sorted(found, key=lambda pair: pair.ratio)[len(found) // 2]
            met = met and middle.ratio >= case.least
            ratio = spread([pair.ratio for pair in found])
            rates = f"{middle.ours.rate / 1e6:.2f} | {middle.theirs.rate / 1e6:.2f}"
            what = f"{case.mode}, {case.flows:,} flows, {case.name}"
            lines.append(f"| {what} | {rates} | {ratio} | {case.least or '-'} |")
        print("dsr-l2, new flows, two datagrams of each", flush=True)
        rates_of_new = new_flows(pairs, folder)
        met = met and median(rates_of_new) >= LEAST_NEW
        millions = spread([rate / 1e6 for rate in rates_of_new])
        lines.append(f"| dsr-l2, new flows/s, two frames each | {millions} | | - | {LEAST_NEW / 1e6:.0f} |")
    print("\n| | l4raw, million frames/s | baseline | ratio | bound |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print("\n".join(lines))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
