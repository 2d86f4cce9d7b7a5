"""The load generator, the sink and the bare loop of the benchmark do what their figures rest on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from l4raw.netns import Topology
from scapy.layers.l2 import Ether

from l4raw.bench.frames import NEW_PORTS
from l4raw.bench.sink import Sink
from l4raw.bench.wires import wires
from l4raw.wire.checksum import add, header_is_valid, pseudo_header
from l4raw.xdp.host import attached
from tests.bench.testbed import HERE, running
from tests.bench.xdp_baseline import run
from tests.bench.xdp_load import offer, two_streams
from tests.integration.capture import capturing, checksums_are_right

pytestmark = [pytest.mark.root, pytest.mark.xdp]


@pytest.fixture
def network() -> Iterator[Topology]:
    with wires() as found:
        yield found


def udp_is_valid(frame: bytes) -> bool:
    """Whether the datagram, its checksum included, sums to all ones; and there is one."""
    pseudo = pseudo_header(frame[26:30], frame[30:34], 17, len(frame) - 34)  # type: ignore[arg-type]
    return frame[40:42] != bytes(2) and (pseudo + add(frame[34:])) % 0xFFFF == 0


@pytest.mark.parametrize("new_frames", [1, 2])
def test_frames_are_right_and_of_as_many_flows_as_asked(network: Topology, new_frames: int) -> None:
    """More flows than one address has ports. Without XDP, GRO gives the veth its NAPI."""
    network.balancer.run(["ethtool", "-K", "eth0", "gro", "on"])
    with Sink(network.backends[0]) as idle, capturing(network.balancer) as capture:
        load = offer(
            network, idle, 30_000, 1.0, flows=17_000, new_rate=3000, burst=3000, new_frames=new_frames
        )
    frames = [frame for frame in capture.frames if frame[23] == 17]
    assert len(frames) == load.offered == load.delivered
    assert all(len(frame) == 60 and header_is_valid(frame[14:34]) and udp_is_valid(frame) for frame in frames)
    assert all(checksums_are_right(Ether(frame)) for frame in frames[:: len(frames) // 50])
    flows = Counter(frame[26:30] + frame[34:36] for frame in frames)
    new = [flow for flow in flows if int.from_bytes(flow[4:], "big") >= NEW_PORTS]
    known = {flow: count for flow, count in flows.items() if flow not in new}
    # The last one may be cut short.
    assert load.sent.new > 1000 and len(new) == -(-load.sent.new // new_frames)
    assert all(flows[flow] == new_frames for flow in new[:-1])
    assert sum(flows[flow] for flow in new) == load.sent.new
    assert len(known) == 17_000 and max(known.values()) - min(known.values()) <= 1
    assert sum(known.values()) == load.sent.known


@pytest.mark.parametrize("rate", [100_000, 500_000])
def test_the_rate_is_kept(
    network: Topology, rate: int, record_property: Callable[[str, object], None]
) -> None:
    """As counted at the sink. Half a second may be caught up with: other jobs have the CPU too."""
    with Sink(network.balancer) as sink:
        load = offer(network, sink, rate, 2.0, burst=rate // 2)
    assert load.arrived == load.offered == load.delivered
    assert load.rate == pytest.approx(rate, rel=0.1)
    record_property("figure", f"load generator: asked {rate:,}/s, at the sink {load.rate:,.0f}/s")


def test_known_and_new_flows_are_counted_apart(network: Topology) -> None:
    with Sink(network.balancer) as sink:
        both = offer(network, sink, 20_000, 0.5, new_rate=10_000, burst=5000)
        misses = offer(network, sink, 0, 0.5, new_rate=10_000, burst=5000)
    assert (both.known.frames, both.new.frames) == (both.sent.known, both.sent.new)
    assert both.known.frames == pytest.approx(2 * both.new.frames, rel=0.1)
    assert misses.known.frames == 0 and misses.new.frames == misses.offered > 0
    assert both.known.gaps.total == both.known.frames - 1
    assert both.known.delays.total == both.known.frames


def test_a_gap_is_seen(network: Topology) -> None:
    """Frames are 10 ms apart."""
    with Sink(network.balancer) as sink:
        known = offer(network, sink, 100, 1.0, burst=1).known
    assert 8e6 < known.gaps.percentile(0.5) < 15e6
    assert known.gaps.percentile(1) * 0.8 <= known.largest_gap <= known.gaps.percentile(1)


def test_the_bare_loop_says_what_became_of_every_frame(network: Topology) -> None:
    with Sink(network.backends[0]) as sink:
        found = run(network, sink, 50_000, 0.5)
    port_in, port_out = found.words["ports"]
    assert found.load.arrived > 1000
    assert sum(found.drops().values()) == found.load.lost
    assert found.drops()["last wire, or unknown"] == 0
    assert port_in["received"] == port_out["sent"] + port_out["tx_ring_full"]
    assert port_in["mode"] == port_out["mode"] == "copy"


def test_the_bare_loop_writes_the_macs_it_was_given(network: Topology) -> None:
    argv = [str(HERE / "xdp_bare.py"), *network.interfaces, network.client.mac, network.backends[0].mac]
    with capturing(network.backends[0]) as capture, running(network, argv) as words:
        with Sink(network.client) as idle:
            load = offer(network, idle, 1000, 0.5)
    frames = [frame for frame in capture.frames if frame[23] == 17]
    assert len(frames) == load.offered == words["ports"][1]["sent"]
    assert {(p.dst, p.src) for p in map(Ether, frames)} == {
        (network.backends[0].mac, network.balancer.links[1].mac)
    }


def test_nothing_stays_attached(network: Topology) -> None:
    """Neither after an orderly end, nor when the generator or the loop is killed."""
    argv = ["eth0", network.balancer.mac, network.vip, "9"]
    loop = [str(HERE / "xdp_bare.py"), *network.interfaces, network.client.mac, network.backends[0].mac]
    with Sink(network.backends[0]) as sink:
        bare = network.balancer.popen([sys.executable, *loop], stdout=subprocess.PIPE)
        assert bare.stdout is not None and bare.stdout.readline() == "ready\n"
        generator = [sys.executable, "-m", "l4raw.bench.generator", *argv]
        killed = network.client.popen(generator, stdin=subprocess.PIPE)
        assert killed.stdin is not None
        print(json.dumps(two_streams(10_000, 30, 10)), file=killed.stdin, flush=True)
        deadline = time.monotonic() + 10
        while not sink.read()[0].frames:
            assert time.monotonic() < deadline and killed.poll() is None
            time.sleep(0.01)
        for process in (bare, killed):
            process.send_signal(signal.SIGKILL)
            process.wait()
        count = sink.read_when_quiet()
        assert count[0].frames == sink.read()[0].frames
    for host in network.hosts:
        with host.enter():
            assert [attached(link.interface) for link in host.links] == [""] * len(host.links)
