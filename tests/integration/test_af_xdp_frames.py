"""Where the AF_XDP engine's frames are: whatever becomes of one, it comes back to its queue."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from l4raw.netns import Log, Topology, nat

from l4raw.control.balancer import Balancer
from l4raw.core.hashing import hash_key
from l4raw.core.tables import Arm
from l4raw.engine.afxdp import FRAMES, AfXdpEngine
from l4raw.engine.burst import MISSES
from l4raw.engine.layout import Sizes
from l4raw.engine.shared import SharedTables
from l4raw.wire.abi import DROP_NO_SERVICE, DROP_OVERFLOW, DROP_TX, FORWARD
from tests.bench.in_process import leave_new_flows_to_python
from tests.integration.capture import wait_for
from tests.integration.in_process import assert_no_frame_leaked, balancer_in_this_process
from tests.integration.xdp_lab import cable

pytestmark = [pytest.mark.root, pytest.mark.xdp]

SERVICE, NONE = 9, 10
"""Ports."""
SEND = """
import socket, sys
host, port, count, flows = sys.argv[1], *map(int, sys.argv[2:])
ends = []
for number in range(flows):
    ends.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    ends[-1].connect((host, port))
for number in range(count):
    try:
        ends[number % flows].send(b"x")
    except OSError:  # the backend's "port unreachable" of the one before
        pass
"""


@contextmanager
def balancing(folder: Path) -> Iterator[tuple[Topology, Balancer, SharedTables]]:
    with nat(backends=1, log=Log(silent=True)) as network:
        toml = network.config_toml(f"{SERVICE}/udp", dataplane="af_xdp")
        with balancer_in_this_process(network, toml, folder) as balancer:
            assert isinstance(balancer.tables, SharedTables)
            yield network, balancer, balancer.tables


def send(network: Topology, port: int, count: int, flows: int = 1) -> None:
    """Datagrams to the VIP, in a process of their own."""
    numbers = map(str, (port, count, flows))
    network.client.run([sys.executable, "-c", SEND, network.vip, *numbers])


def engine_of(balancer: Balancer) -> AfXdpEngine:
    assert isinstance(balancer.engine, AfXdpEngine)
    return balancer.engine


def test_no_frame_leaks_whatever_becomes_of_it(tmp_path: Path) -> None:
    with balancing(tmp_path) as (network, balancer, tables):
        engine = engine_of(balancer)

        def dropped() -> bool:
            send(network, NONE, FRAMES)
            return tables.total_verdicts()[DROP_NO_SERVICE] > 2 * FRAMES

        wait_for(dropped, "more are dropped than there are frames")
        assert_no_frame_leaked(engine)

        leave_new_flows_to_python(tables)
        send(network, SERVICE, 500, flows=500)
        wait_for(lambda: tables.total_verdicts()[FORWARD] > 100, "Python sent some")
        # Nobody empties the ring of misses while the GIL is held here.
        network.client.popen([sys.executable, "-c", SEND, network.vip, str(SERVICE), "700", "700"])
        library = ctypes.PyDLL(None)

        def overflowed() -> bool:
            library.usleep(300_000)
            # The first 500 may have been too many at once as well.
            return (
                bool(tables.total_verdicts()[DROP_OVERFLOW]) and engine.statistics()["misses"] >= 100 + MISSES
            )

        wait_for(overflowed, "the ring of misses overflowed")
        counted = engine.statistics()
        assert counted["misses"] >= 100 + MISSES
        assert counted["miss_overflow"] == tables.total_verdicts()[DROP_OVERFLOW]
        assert_no_frame_leaked(engine)


def test_an_egress_that_takes_nothing_costs_drops_and_no_frames(tmp_path: Path) -> None:
    with balancing(tmp_path) as (network, balancer, tables):
        verdicts = tables.total_verdicts
        sent = 0

        def known() -> bool:
            # Until the backend's MAC is known, a frame is dropped: another verdict.
            nonlocal sent
            send(network, SERVICE, 1)
            sent += 1
            return verdicts()[FORWARD] > 0

        wait_for(known, "a known flow")
        wait_for(lambda: sum(verdicts()) >= sent, "each has its verdict")
        hop, mac = next((number, mac) for number, mac in enumerate(tables.next_hops.macs) if mac)
        switch = next(host for host in network.hosts if host.name == "switch")
        switch.ip("link set balancer-eth1 down")
        wait_for(lambda: tables.next_hops.macs[hop] is None, "without a carrier no neighbour is known")
        tables.next_hops.set_mac(hop, mac)
        before = verdicts()[FORWARD]

        def dropped() -> bool:
            send(network, SERVICE, FRAMES)
            return verdicts()[DROP_TX] > FRAMES

        wait_for(dropped, "more are dropped than there are frames")
        assert verdicts()[FORWARD] == before
        assert_no_frame_leaked(engine_of(balancer))

        switch.ip("link set balancer-eth1 up")

        def works_again() -> bool:
            send(network, SERVICE, 1)
            return verdicts()[FORWARD] > before

        wait_for(works_again, "a frame is sent")


def test_an_interface_that_goes_is_told_with_its_queue() -> None:
    with cable() as (left, right), right.enter():
        arm = Arm("eth0", bytes.fromhex("020000009902"))
        engine = AfXdpEngine([arm], hash_key(b"any"), Sizes(1 << 20)).open()
        try:
            assert not list(engine.poll(0))
            left.ip("link del eth0")
            with pytest.raises(OSError, match="AF_XDP socket of eth0, queue 0: Network is down"):
                poll_for(engine, 5)
        finally:
            engine.close()


def poll_for(engine: AfXdpEngine, seconds: float) -> None:
    """As the balancer does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in engine.poll(0.01):
            pass


def test_what_changes_on_the_interface_is_noticed() -> None:
    with cable() as (_, right), right.enter():
        arm = Arm("eth0", bytes.fromhex("020000009902"))
        engine = AfXdpEngine([arm], hash_key(b"any"), Sizes(1 << 20)).open()
        try:
            engine.look()
            right.ip("link set eth0 mtu 1700")
            engine.look()
            right.ip("link set eth0 mtu 1800")
            with pytest.raises(OSError, match="an MTU of 1800"):
                engine.look()
        finally:
            engine.close()
