"""Test frames, drivers' counters and the kernel's news on real interfaces; and a balancer without news."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
from l4raw.netns import NO_CHECK, Host, Log, dsr
from l4raw.netns.clients import CURL, make_file, sha256
from l4raw.netns.servers import nginx

from l4raw.control import dataplane, kernel_path
from l4raw.control.egress import FRAMES, Egress, Outcome
from l4raw.control.errors import L4Error
from l4raw.control.kernel_path import Forwards, KernelPath
from l4raw.control.netlink import Interface, Netlink
from l4raw.control.xdp_features import XdpFeatures
from l4raw.engine.egress import TrialFrames, frame
from l4raw.wire import ethernet
from l4raw.wire.abi import FORWARD, VERDICT_COUNT
from tests.integration.in_process import balancer_in_this_process
from tests.integration.napi import gro, switch_of
from tests.integration.xdp_lab import LEFT_MAC, cable, xdp_on

pytestmark = [pytest.mark.root, pytest.mark.xdp]

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 20.0
"""Seconds."""
MAC = ethernet.parse_mac(LEFT_MAC)
SIZE = 20_000_000
ETH_P_ALL = 3


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def set_gro(end: Host, state: str) -> None:
    end.run(["ethtool", "-K", "eth0", "gro", state])


def interfaces(*names: str) -> list[Interface]:
    with Netlink() as netlink:
        return netlink.interfaces(names)


@contextmanager
def listening(host: Host, name: str) -> Iterator[Callable[[], bytes]]:
    """What gives the next test frame, whoever it is for. A tap: a bridge leaves nothing for others."""
    with host.enter():
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        made.bind((name, ETH_P_ALL))
    made.settimeout(DEADLINE)

    def next_one() -> bytes:
        while True:
            found = made.recv(2048)
            if found[ethernet.TYPE : ethernet.LENGTH] == ethernet.EXPERIMENTAL.to_bytes(2):
                return found

    with made:
        yield next_one


def test_a_test_frame_tells_whether_an_interface_sends_what_is_redirected() -> None:
    with cable() as (left, right), left.enter():
        tested = Egress(interfaces("eth0"))
        assert [each.outcome for each in tested.tested] == [Outcome.DROPPED]
        set_gro(right, "on")
        with listening(right, "eth0") as arrived:
            assert tested.test(0).outcome is Outcome.SENT
            assert [arrived() for _ in range(FRAMES)] == [frame(MAC)] * FRAMES
        set_gro(right, "off")
        assert tested.test(0).outcome is Outcome.DROPPED
        assert xdp_on(left) == 0
        tested.close()


def test_a_bridge_forwards_no_test_frame() -> None:
    with dsr(backends=1, log=Log(silent=True)) as network, ExitStack() as stack:
        gro(network, "on")
        at_client = stack.enter_context(listening(network.client, "eth0"))
        at_port = stack.enter_context(listening(switch_of(network), "balancer-eth0"))
        with network.balancer.enter():
            (arm,) = interfaces("eth0")
            tested = Egress([arm])
            stack.callback(tested.close)
            marker = ethernet.HEADER.pack(ethernet.BROADCAST, arm.mac, ethernet.EXPERIMENTAL).ljust(60, b"!")
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind(("eth0", 0))
                sender.send(marker)
        assert [at_port() for _ in range(FRAMES + 1)] == [frame(arm.mac)] * FRAMES + [marker]
        assert at_client() == marker


def test_a_running_balancer_may_test_again() -> None:
    """It has given CAP_BPF away by then."""
    program = """if True:
        from l4raw.control.egress import Egress
        from l4raw.control.netlink import Netlink
        from l4raw.control.privileges import TO_RUN, keep_only
        with Netlink() as netlink:
            tested = Egress(netlink.interfaces(["eth0"]))
        keep_only(TO_RUN)
        print(tested.test(0))
    """
    with cable() as (left, right):
        set_gro(right, "on")
        argv = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-P", "-c", program]
        assert left.run(argv).stdout == "sent\n"


class Redirects:
    """An engine whose kernel path sends test frames, while it may."""

    def __init__(self, arm: Interface) -> None:
        self._arm, self._frames, self._lock = arm, TrialFrames(), Lock()
        self.tables, self.allowed, self.sent = self, False, 0
        self.changes: list[Forwards] = []

    def verdicts_by_kernel(self) -> list[int]:
        with self._lock:
            return [self.sent if verdict == FORWARD else 0 for verdict in range(VERDICT_COUNT)]

    def forward_in_kernel(self, allowed: bool) -> None:
        self.allowed = allowed

    def redirect(self, count: int) -> None:
        """Sent is what was redirected, whatever became of it."""
        with self._lock:
            if self.allowed:
                assert self._frames.send(self._arm.index, self._arm.mac, count)
                self.sent += count

    def states(self) -> list[bool]:
        return [each.forwards for each in self.changes]

    def close(self) -> None:
        self._frames.close()


@contextmanager
def looked_at(left: Host, features: Callable[[], XdpFeatures] = XdpFeatures) -> Iterator[Redirects]:
    """A kernel path over eth0 of `left`."""
    with ExitStack() as stack, left.enter():
        tested = Egress(interfaces("eth0"))
        stack.callback(tested.close)
        engine = Redirects(tested.interfaces[0])
        stack.callback(engine.close)
        path = KernelPath(tested, engine, engine.changes.append, features)  # type: ignore[arg-type]
        stack.callback(path.close)
        path.start()
        yield engine
        path.check()


def no_family() -> Any:
    raise L4Error("L4R-304", what="this kernel does not tell")


def test_the_kernel_tells_of_a_change_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_path, "LOOK_S", 3600.0)
    with cable() as (left, right), looked_at(left) as engine:
        assert engine.states() == [False]
        for forwards, state in ((True, "on"), (False, "off"), (True, "on")):
            set_gro(right, state)
            wait(lambda: engine.states()[-1] == forwards)  # noqa: B023
            assert engine.allowed == forwards
        assert engine.states() == [False, True, False, True]


def test_without_news_the_next_look_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l4raw.control.xdp_features._news", lambda group: None)
    with cable() as (left, right), looked_at(left) as engine:
        set_gro(right, "on")
        wait(lambda: engine.states() == [False, True])


def test_without_the_family_test_frames_and_counters_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_path, "LOOK_S", 0.05)
    monkeypatch.setattr(kernel_path, "AGAIN_S", 0.2)
    with cable() as (left, right), looked_at(left, no_family) as engine:
        assert engine.states() == [False]
        set_gro(right, "on")
        wait(lambda: engine.states() == [False, True])
        for _ in range(3):  # all arrive, so nothing ends
            engine.redirect(100)
        set_gro(right, "off")

        def lost() -> bool:
            engine.redirect(100)
            return engine.states() == [False, True, False]

        wait(lost)
        (reason,) = engine.changes[-1].reasons
        assert reason.startswith("eth0 drops what XDP redirects to it: ") and "reached its driver" in reason
        set_gro(right, "on")
        wait(lambda: engine.states()[-1])


def test_a_transfer_survives_that_gro_ends_though_nobody_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A whole balancer on a kernel that is as one before 6.3."""
    monkeypatch.setattr(dataplane, "KernelPath", partial(KernelPath, open_features=no_family))
    got = tmp_path / "got"
    with dsr(backends=1, log=Log(silent=True)) as network, ExitStack() as stack:
        gro(network, "on")
        server = stack.enter_context(nginx(network.backends[0]))
        digest = make_file(server.files / "big", SIZE)
        toml = network.config_toml(dataplane="xdp", check=NO_CHECK)
        balancer = stack.enter_context(balancer_in_this_process(network, toml, tmp_path))
        assert balancer.kernel_path.popleft() == Forwards(True, ())
        slow = ["--limit-rate", str(SIZE // 4), "--output", str(got)]
        transfer = network.client.popen([*CURL, *slow, f"http://{network.vip}/files/big"])
        wait(lambda: got.exists() and got.stat().st_size > SIZE // 8)
        assert balancer.engine.statistics()["kernel_forwarded"] > 0
        gro(network, "off")
        wait(lambda: balancer.kernel_path)
        assert "frames reached its driver" in str(balancer.kernel_path.popleft())
        assert transfer.poll() is None, "it was over before"
        assert transfer.wait(DEADLINE) == 0
        assert sha256(got) == digest
