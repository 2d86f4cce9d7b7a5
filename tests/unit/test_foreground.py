"""What `up` says while it runs, without a balancer."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from l4raw.cli.foreground import Foreground
from l4raw.cli.state import State

VIP = bytes([10, 77, 0, 100])
ONE, OTHER = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")


def test_a_conflict_is_told_once_for_each_host_and_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("l4raw.cli.foreground.time.monotonic", lambda: clock.now)
    conflicts: deque[tuple[bytes, bytes]] = deque()
    balancer = cast("Any", SimpleNamespace(conflicts=conflicts, arms=[SimpleNamespace(name="eth0")]))
    foreground = Foreground(State())

    def told(*hosts: bytes) -> int:
        conflicts.extend((VIP, host) for host in hosts)
        foreground.each_second(balancer)
        assert not conflicts
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err.count("warning L4R-207: the host 02:00:00:00:00:")

    assert told(ONE, ONE) == 1
    assert told(ONE, OTHER) == 1
    clock.now += 599
    assert told(ONE) == 0
    clock.now += 2
    assert told(ONE) == 1
