"""The test bed: a network with one backend, the program under test on one CPU, the generator on another.

Lives here: what every measurement with traffic needs. Must not live here: what is measured (traffic.py).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from l4raw.netns import NO_CHECK, Host, Log, Topology, dsr, nat

from l4raw.bench.load import alone_on
from l4raw.core.model import Mode
from tests.bench.generator import PORT

HERE = Path(__file__).parent
GENERATOR_CPU, BALANCER_CPU = 0, 1
SECONDS = 2
"""How long the generator sends."""
FLOWS = 1000
MODES = (Mode.DSR_L2, Mode.NAT)
"""Those whose network is built here, and whose figures are in docs/performance.md."""
_QUIET_S = 0.1
"""When the backend has received nothing for so long, the queues are empty."""
# The backend drops the frames as they arrive: on veth its work would be done on the balancer's CPU.
_SINK = """table netdev sink {{
  counter frames {{ }}
  chain in {{ type filter hook ingress device "eth0" priority 0; udp dport {port} counter name frames drop; }}
}}"""


class Load(NamedTuple):
    """One run of the generator, in frames."""

    sent: int
    seconds: float
    by_then: int
    """Forwarded when the last one was sent; the others waited or were dropped."""
    forwarded: int
    """In the end, when none waits."""

    @property
    def offered_rate(self) -> float:
        """Frames/s sent."""
        return self.sent / self.seconds

    @property
    def rate(self) -> float:
        """Frames/s forwarded."""
        return self.by_then / self.seconds

    @property
    def dropped(self) -> int:
        """Frames that never reached the backend."""
        return self.sent - self.forwarded

    @property
    def queued(self) -> int:
        """Frames that reached it only after the last one was sent."""
        return max(0, self.forwarded - self.by_then)  # ARP is in the latter


@contextmanager
def testbed(mode: Mode, folder: Path, dataplane: str = "raw") -> Iterator[tuple[Topology, Path]]:
    """A two-arm network with one backend, which drops the generator's frames; and its configuration file."""
    build = dsr if mode is Mode.DSR_L2 else nat
    with build(arms=2, backends=1, log=Log(silent=True)) as network:
        network.backends[0].run(["nft", _SINK.format(port=PORT)])
        config = folder / f"{mode}.toml"
        services = f"{PORT}/udp", "0/tcp"
        lb = {"ring_seed": "bench"}
        config.write_text(network.config_toml(*services, dataplane=dataplane, check=NO_CHECK, lb=lb))
        yield network, config


def up(config: Path) -> list[str]:
    """The balancer, as arguments of Python."""
    return ["-m", "l4raw", "up", "--json", "-q", "-c", str(config)]


@contextmanager
def running(network: Topology, argv: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Run Python in the balancer's namespace, on its CPU; after the end the dict has what it said last.

    Until then `pid` is its process.
    """
    command = [*alone_on(BALANCER_CPU), sys.executable, *argv]
    process = network.balancer.popen(command, stdout=subprocess.PIPE, cwd=HERE.parents[1])
    assert process.stdout is not None
    if "ready" not in process.stdout.readline():
        raise SystemExit(f"{' '.join(argv)}: did not start")
    words: dict[str, Any] = {"pid": process.pid}
    yield words
    process.send_signal(signal.SIGTERM)
    words |= json.loads(process.communicate()[0].splitlines()[-1])


def offer(network: Topology, rate: int) -> Load:
    """Send to the VIP for SECONDS and wait until what was not dropped has arrived."""
    client, backend = network.client, network.backends[0]
    argv = ["eth0", network.balancer.mac, client.address, network.vip, *map(str, (rate, SECONDS, FLOWS))]
    command = ["taskset", "-c", str(GENERATOR_CPU), sys.executable, str(HERE / "generator.py"), *argv]
    frames, packets = _sink(backend), _rx_packets(backend)
    with client.popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        by_then = _rx_packets(backend) - packets
    sent = json.loads(line)
    seen = -1
    while (now := _rx_packets(backend)) != seen:
        seen = now
        time.sleep(_QUIET_S)
    return Load(sent["sent"], sent["seconds"], by_then, _sink(backend) - frames)


def _sink(backend: Host) -> int:
    """The generator's frames that have reached the backend, and no others."""
    done = backend.run(["nft", "-j", "list", "counter", "netdev", "sink", "frames"])
    return int(json.loads(done.stdout)["nftables"][-1]["counter"]["packets"])


def _rx_packets(backend: Host) -> int:
    """All frames that the backend has received, a few of ARP included; read within microseconds."""
    lines = Path(f"/proc/{backend.pid}/net/dev").read_text().splitlines()
    return next(int(line.split()[2]) for line in lines if line.strip().startswith("eth0:"))
