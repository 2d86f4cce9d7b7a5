"""`make bench`: what the raw engine does on this machine, beside what it could at most do.

Prints figures, never passes or fails. Two CPUs are enough: the generator has
one, the balancer the other. The backends drop what reaches them, so that
their kernel's work is not counted as the balancer's.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import timeit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from l4raw.netns import Log, Topology, dsr, nat
from l4raw.netns.clients import iperf3
from l4raw.netns.process import temporary_folder
from l4raw.netns.servers import iperf3_server

from l4raw import __version__
from l4raw.core.model import Mode, Scheduler
from l4raw.core.rewrite import apply
from l4raw.core.steer import steer
from tests.tables import backends, make_tables, service
from tests.unit.test_steer import request

HERE = Path(__file__).parent
BUILD = {Mode.DSR_L2: dsr, Mode.NAT: nat}
SECONDS = 2.0
FLOWS = 1000
LOADS = (60_000, 80_000, 100_000, 120_000)
LOSS = 0.001
"""A load counts as carried when no more than one frame in a thousand is lost."""
SATURATED = 400_000
ROUNDS = 3


def machine() -> None:
    """What the figures belong to."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"l4raw {__version__}, Python {platform.python_version()}, Linux {platform.release()}")
    print(f"{os.cpu_count()} x {cpu[1] if cpu else platform.machine()}; veth between network namespaces")


def in_memory() -> None:
    """One call of steer(), and what the loop adds, without any input or output."""
    print("\nsteer() in memory, ns a frame (best of 7)")
    number = 20_000
    for mode in Mode:
        members = backends(port=8080 if mode is Mode.NAT else 0)
        tables = make_tables([service(mode, Scheduler.MAGLEV, members=members)], 2, memory=1 << 23)
        new = iter([bytearray(request(port)) for port in range(1024, 1024 + number)])
        known = memoryview(bytearray(request(1024, "A")))
        names = {"steer": steer, "apply": apply, "new": new, "known": known, "tables": tables}
        first = timeit.timeit("steer(next(new), 0, False, tables)", globals=names, number=number) / number
        names["edits"] = steer(known, 0, False, tables).edits
        each, writing = (
            min(timeit.repeat(statement, globals=names, number=number, repeat=7)) / number
            for statement in ("steer(known, 0, False, tables)", "apply(known, edits)")
        )
        print(
            f"  {mode:8} known flow {each * 1e9:6.0f}   new flow {first * 1e9:6.0f}"
            f"   applying the edits {writing * 1e9:6.0f}"
        )


@contextmanager
def started(network: Topology, argv: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run a program on CPU 1 in the balancer's namespace until its end; fills the dict with its last line."""
    process = network.balancer.popen(
        ["taskset", "-c", "1", sys.executable, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    if "ready" not in process.stdout.readline():
        raise SystemExit(f"{argv}: {process.stderr.read()}")
    result: dict[str, Any] = {}
    yield result
    process.send_signal(signal.SIGTERM)
    result |= json.loads(process.communicate()[0].splitlines()[-1])


@contextmanager
def networks(mode: Mode, folder: Path) -> Iterator[tuple[Topology, list[str]]]:
    """A two-arm network whose one backend drops what it gets, and the command that balances in it."""
    with BUILD[mode](arms=2, backends=1, log=Log(silent=True)) as network:
        hook = 'type filter hook ingress device "eth0" priority 0'
        network.backends[0].run(["nft", f"table netdev sink {{ chain in {{ {hook}; udp dport 9 drop; }}; }}"])
        config = folder / f"{mode}.toml"
        config.write_text(network.config_toml("9/udp", "0/tcp", lb={"ring_seed": "bench"}))
        yield network, ["-m", "l4raw", "up", "--json", "-q", "-c", str(config)]


def offer(network: Topology, rate: float) -> dict[str, Any]:
    """Send for two seconds from CPU 0."""
    argv = [
        "eth0",
        network.balancer.mac,
        network.client.address,
        network.vip,
        str(rate),
        str(SECONDS),
        str(FLOWS),
    ]
    command = ["taskset", "-c", "0", sys.executable, str(HERE / "generator.py"), *argv]
    sent: dict[str, Any] = json.loads(network.client.run(command, timeout=60).stdout)
    return sent


def received(network: Topology) -> int:
    """Frames that the backend's interface has received."""
    (link,) = json.loads(network.backends[0].run(["ip", "-j", "-s", "link", "show", "dev", "eth0"]).stdout)
    return int(link["stats64"]["rx"]["packets"])


def run_load(network: Topology, argv: Sequence[str], rate: float) -> tuple[float, float, dict[str, Any]]:
    """Offer a load; frames/s offered, frames/s that arrived, and the program's last words."""
    before = received(network)
    with started(network, argv) as result:
        sent = offer(network, rate)
    arrived = received(network) - before
    return sent["sent"] / sent["seconds"], arrived / sent["seconds"], result


def small_frames(mode: Mode, folder: Path) -> None:
    """The load that is carried, and the rate at saturation, beside a loop that only writes MAC addresses."""
    with networks(mode, folder) as (network, up):
        bare = [str(HERE / "bare.py"), "forward", *network.interfaces, network.backends[0].mac]
        best, ratios, rates = 0.0, [], []
        for load in LOADS:
            offered, arrived, _ = run_load(network, up, load)
            lost = max(0.0, 1 - arrived / offered)
            print(f"  {mode:8} offered {offered:9,.0f}/s   arrived {arrived:9,.0f}/s   lost {lost:7.2%}")
            best = arrived if lost <= LOSS else best
        for _ in range(ROUNDS):
            _, with_steer, _ = run_load(network, up, SATURATED)
            _, without, _ = run_load(network, bare, SATURATED)
            rates.append(with_steer)
            ratios.append(with_steer / without)
        print(
            f"  {mode:8} carried {best:9,.0f}/s   saturated {statistics.median(rates):9,.0f}/s"
            f"   of the bare loop's rate {statistics.median(ratios):.2f} (median of {ROUNDS} pairs)"
        )


def where_time_goes(folder: Path) -> None:
    """CPU time of a frame in parts: receiving, sending, and what l4raw adds."""
    with networks(Mode.DSR_L2, folder) as (network, _):
        costs = {}
        for kind in ("receive", "forward"):
            argv = [str(HERE / "bare.py"), kind, *network.interfaces, network.backends[0].mac]
            _, _, result = run_load(network, argv, LOADS[0])
            costs[kind] = result["cpu"] / result["frames"] * 1e6
    print("\nwhere the time goes, CPU us a frame (60,000/s; kernel included)")
    receive, send = costs["receive"], costs["forward"] - costs["receive"]
    print(f"  receive {receive:.1f}   write two MAC addresses and send {send:.1f}")
    print("  the rest is steer(), applying edits and counting: see above")


def throughput(mode: Mode, folder: Path) -> None:
    """iperf3 through the balancer, and from the client to the backend directly."""
    with networks(mode, folder) as (network, up), iperf3_server(network.backends[0]):
        rates = []
        for reverse in (False, True):
            with started(network, up):
                rates.append(iperf3(network.client, network.vip, seconds=5, reverse=reverse))
        there, back = (rate / 1e9 for rate in rates)
        print(f"  {mode:8} client to backend {there:5.1f} Gbit/s   backend to client {back:5.1f} Gbit/s")


def main() -> None:
    """Everything, about three minutes."""
    if os.geteuid() != 0:
        raise SystemExit("make bench needs root: it makes network namespaces")
    machine()
    in_memory()
    with temporary_folder("l4raw-bench-") as folder:
        where_time_goes(folder)
        print(f"\nsmall frames (60 bytes, {FLOWS} flows, two arms, one core)")
        for mode in Mode:
            small_frames(mode, folder)
        print(
            "\niperf3, one connection, default offloads (dsr-l2: the way back does not pass the balancer)"
        )
        for mode in Mode:
            throughput(mode, folder)


if __name__ == "__main__":
    main()
