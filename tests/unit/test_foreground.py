"""What `up` says while it runs, without a balancer."""

from __future__ import annotations

import json
from collections import deque
from types import SimpleNamespace
from typing import Any, cast

import pytest

from l4raw.cli.foreground import Foreground
from l4raw.cli.state import State
from l4raw.control.standing import Event
from l4raw.control.standing import State as Health
from l4raw.core.snat import Ports
from l4raw.core.tables import NO_POLICY
from l4raw.wire.abi import DROP_FLOWS_FULL, EVENT_COUNT, EVENT_EVICTED_HALF_OPEN, VERDICT_COUNT
from tests.tables import fullnat, make_tables

VIP = bytes([10, 77, 0, 100])
ONE, OTHER = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")


def test_a_conflict_is_told_once_for_each_host_and_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("l4raw.cli.foreground.time.monotonic", lambda: clock.now)
    conflicts: deque[tuple[bytes, bytes]] = deque()
    balancer = cast(
        "Any",
        SimpleNamespace(
            conflicts=conflicts,
            health_events=(),
            kernel_path=(),
            arms=[SimpleNamespace(name="eth0")],
            unresolved=[],
            tables=no_tables(),
        ),
    )
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


def no_tables() -> Any:
    """As much of tables as is looked at here."""
    share = SimpleNamespace(limit=10)
    flows = SimpleNamespace(used=50, capacity=100, share=share)
    return SimpleNamespace(
        ports=Ports(),
        policy=NO_POLICY,
        flows=flows,
        total_events=lambda: [0] * EVENT_COUNT,
        total_verdicts=lambda: [0] * VERDICT_COUNT,
    )


def test_what_finds_no_room_is_told_now_and_then_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, events, verdicts = SimpleNamespace(now=100.0), [0] * EVENT_COUNT, [0] * VERDICT_COUNT
    monkeypatch.setattr("l4raw.cli.foreground.time.monotonic", lambda: clock.now)
    balancer = running([])
    balancer.tables.total_events, balancer.tables.total_verdicts = lambda: events, lambda: verdicts

    def said(foreground: Foreground, evicted: int, refused: int = 0) -> str:
        events[EVENT_EVICTED_HALF_OPEN] += evicted
        verdicts[DROP_FLOWS_FULL] += refused
        foreground.each_second(balancer)
        printed = capsys.readouterr()
        return printed.out + printed.err

    text = Foreground(State())
    assert said(text, 0) == ""
    assert "half-open flows make room for newer ones, 1,234 in this second: a flood" in said(text, 1234)
    assert said(text, 5) == ""
    balancer.tables.flows.used = 91
    full = "in this second: the flow table is full: raise flow_memory"
    assert said(text, 5, 7) == f"warning: new flows are refused, 7 {full}\n"
    clock.now += 601
    assert f"5 {full}" in said(text, 5)
    events[:] = [0] * EVENT_COUNT
    verdicts[:] = [0] * VERDICT_COUNT
    data = Foreground(State(json=True))
    assert said(data, 0) == ""
    for new in ({"evicted_half_open": 7}, {"evicted_half_open": 8, "drop_flows_full": 3}):
        line = {"schema": "l4raw.up/1", "event": "flow_table", "entries": 91, "capacity": 100, **new}
        assert json.loads(said(data, new["evicted_half_open"], new.get("drop_flows_full", 0))) == line


def running(unresolved: list[str]) -> Any:
    """As much of a balancer as is looked at here."""
    arm = SimpleNamespace(name="eth0")
    config = SimpleNamespace(services=())
    return SimpleNamespace(
        name="test",
        dataplane="raw",
        dataplane_note="",
        config=config,
        conflicts=deque(),
        health_events=deque(),
        kernel_path=deque(),
        arms=[arm],
        unresolved=unresolved,
        warnings=[],
        tables=no_tables(),
    )


def test_a_backend_whose_mac_is_lost_is_told_once_and_again_when_it_is_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    balancer, foreground = running(["b3"]), Foreground(State())
    foreground.ready(balancer)
    assert capsys.readouterr().err == "warning: nobody answers ARP for b3 yet\n"
    said = []
    for unresolved in (["b3"], ["b2", "b3"], ["b2", "b3"], ["b2"], [], []):
        balancer.unresolved = unresolved
        foreground.each_second(balancer)
        printed = capsys.readouterr()
        assert printed.out == ""
        said.append(printed.err)
    assert said == [
        "",
        "warning: nobody answers ARP for b2 any more: frames to there are dropped\n",
        "",
        "ARP for b3 is answered now: frames to there are sent\n",
        "ARP for b2 is answered now: frames to there are sent\n",
        "",
    ]


def test_two_backends_of_one_name_are_two(capsys: pytest.CaptureFixture[str]) -> None:
    """Of two services: a name is unique in its service only."""
    balancer, foreground = running(["b1"]), Foreground(State())
    foreground.ready(balancer)
    capsys.readouterr()
    balancer.unresolved = ["b1", "b1"]
    foreground.each_second(balancer)
    assert "nobody answers ARP for b1 any more" in capsys.readouterr().err


def test_a_lost_backend_is_an_event_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    balancer, foreground = running([]), Foreground(State(json=True))
    for unresolved in ([], ["b1", "b2"], ["b2"]):
        balancer.unresolved = unresolved
        foreground.each_second(balancer)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [json.loads(line) for line in printed.out.splitlines()] == [
        {
            "schema": "l4raw.up/1",
            "event": "backends",
            "lost": ["b1", "b2"],
            "found": [],
            "unresolved": ["b1", "b2"],
        },
        {"schema": "l4raw.up/1", "event": "backends", "lost": [], "found": ["b1"], "unresolved": ["b2"]},
    ]


def test_backends_that_go_down_and_come_back_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    events = [
        Event("web", "b2", Health.DOWN, "connection refused", 3, 3),
        Event("web", "b2", Health.UP, "", 2, 2),
    ]
    balancer = running([])
    balancer.health_events.extend(events)
    Foreground(State()).each_second(balancer)
    assert not balancer.health_events
    assert capsys.readouterr().err == (
        "backend web/b2 down: connection refused (3 of 3)\nbackend web/b2 up (2 of 2)\n"
    )
    balancer.health_events.extend(events[:1])
    Foreground(State(json=True)).each_second(balancer)
    assert json.loads(capsys.readouterr().out) == {
        "schema": "l4raw.up/1",
        "event": "health",
        "service": "web",
        "backend": "b2",
        "state": "down",
        "reason": "connection refused",
        "in_row": 3,
        "needed": 3,
    }


def test_what_to_try_comes_after_ready(capsys: pytest.CaptureFixture[str]) -> None:
    for state, expected in ((State(), "try this\n"), (State(quiet=True), ""), (State(json=True), "")):
        state.after_ready = "try this"
        Foreground(state).ready(running([]))
        printed = capsys.readouterr()
        assert (printed.err, printed.out.count("ready")) == (expected, 1)


def test_an_exhausted_pool_is_named_with_how_many_were_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Once a second, which is how often each_second() is called."""
    balancer, tables = running([]), make_tables(fullnat(5000, 5015))
    balancer.tables = tables
    for state, expected in (
        (
            State(),
            "warning: service web: the SNAT pool 10.78.0.201:5000-5015 has no port left for"
            " b2 10.78.0.12:8080: 2 new flows refused\n",
        ),
        (State(json=True), '"refused": 2'),
    ):
        tables.ports.refuse(2)
        tables.ports.refuse(2)
        foreground = Foreground(state)
        foreground.each_second(balancer)
        said = capsys.readouterr()
        assert expected in said.out + said.err
        foreground.each_second(balancer)
        assert capsys.readouterr() == ("", "")
