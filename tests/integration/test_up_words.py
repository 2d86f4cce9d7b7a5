"""What `l4raw up` says, and where: stdout, stderr, a terminal, nobody."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from l4raw.netns import Log, Topology, dsr

from tests.integration.snapshot import assert_as_before
from tests.integration.starting import DEADLINE, NOTHING_LEFT, Place, Up, echo, l4raw, toml

pytestmark = pytest.mark.root


@pytest.fixture
def network() -> Iterator[Topology]:
    with dsr(backends=1, log=Log(silent=True)) as built:
        yield built


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def up(network: Topology, place: Place, *args: str, **lb: object) -> Up:
    return Up(network.balancer, place, "-c", place.config(toml(network, **lb)), *args)


def test_text_goes_to_stderr_but_for_one_line(network: Topology, place: Place) -> None:
    balancer = up(network, place).wait_ready()
    balancer.stop()
    assert re.fullmatch(
        r"ready: port-53-udp 10\.77\.0\.100:53/udp dsr-l2 over raw on eth0 .*\n", balancer.out
    )
    assert "plan for instance" in balancer.err
    assert "\x1b" not in balancer.out + balancer.err


def test_quiet_says_ready_and_nothing_else(network: Topology, place: Place) -> None:
    balancer = up(network, place, "-q").wait_ready()
    balancer.send(signal.SIGTERM)
    assert balancer.end() == 0
    assert (len(balancer.out.splitlines()), balancer.err) == (1, "")


def test_json_lines(network: Topology, place: Place) -> None:
    balancer = up(network, place, "--json", "--trace", "1").wait_ready()
    with echo(network) as servers:
        assert servers.ask()
    balancer.stop()
    events = [json.loads(line) for line in balancer.out.splitlines()]
    assert [event["event"] for event in events] == ["ready", "frame", "stopped"]
    assert {event["schema"] for event in events} == {"l4raw.up/1"}
    assert events[-1]["left"] == 0
    assert events[-1]["counters"]["verdicts"]["forward"] >= 1


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_nobody_reads_and_it_goes_on(network: Topology, place: Place, closed: str) -> None:
    """As in `l4raw up | head -1`: the reader has gone when the next line comes."""
    before = place.look(network.balancer)
    reading, writing = os.pipe()
    balancer = Up(
        network.balancer, place, "-c", place.config(toml(network)), "--trace", "9", **{closed: writing}
    )
    os.close(writing)
    assert os.read(reading, 1 << 16)
    os.close(reading)
    with echo(network) as servers:
        assert all(servers.ask() for _ in range(3))
    balancer.send(signal.SIGTERM)
    assert balancer.end() == 0, balancer.err
    assert_as_before(before, lambda: place.look(network.balancer), 0.0)


def test_without_stdout_it_runs(network: Topology, place: Place) -> None:
    command = " ".join(["exec", *l4raw("up", "-c", place.config(toml(network))), ">&-", "2>&-"])
    process = network.balancer.popen(["sh", "-c", command], env=place.environment())
    with echo(network) as servers:
        assert servers.ask()
    process.terminate()
    assert process.wait(DEADLINE) == 0


@contextmanager
def terminal(
    network: Topology, place: Place, *args: str, **variables: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`up` on a terminal of its own; the process and our end of the terminal."""
    ours, theirs = os.openpty()
    argv = ["setsid", "--ctty", *l4raw("up", "-c", place.config(toml(network)), *args)]
    environment = {**place.environment(), "TERM": "xterm", **variables}
    process = network.balancer.popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, text=False, env=environment, start_new_session=False
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        network.balancer.end(process)
        with suppress(OSError):
            os.close(ours)


def read_until(terminal: int, pattern: str) -> str:
    """All that is on the terminal up to a match; EOF is EIO there."""
    text, until = "", time.monotonic() + DEADLINE
    while not re.search(pattern, text):
        assert select.select([terminal], [], [], max(0.0, until - time.monotonic()))[0], (
            f"no {pattern}: {text}"
        )
        try:
            text += os.read(terminal, 4096).decode()
        except OSError:
            break
    assert re.search(pattern, text), text
    return text


def test_on_a_terminal_it_redraws_a_line_and_ctrl_c_stops_it(network: Topology, place: Place) -> None:
    before = place.look(network.balancer)
    with terminal(network, place) as (process, ours):
        read_until(ours, "ready")
        with echo(network) as servers:
            assert servers.ask()
        read_until(ours, r"\r\x1b\[K\d+ frames/s   [1-9]\d* frames   [1-9]\d* flows .*Ctrl-C stops")
        os.write(ours, b"\x03")
        text = read_until(ours, re.escape(NOTHING_LEFT))
        assert re.search(r"\r\x1b\[Kstopped\.", text), "the line is erased before the last words"
        assert process.wait(DEADLINE) == 0
    assert_as_before(before, lambda: place.look(network.balancer), 0.0)


def test_a_closed_terminal_stops_it(network: Topology, place: Place) -> None:
    before = place.look(network.balancer)
    with terminal(network, place) as (process, ours):
        read_until(ours, "Ctrl-C stops")
        os.close(ours)
        assert process.wait(DEADLINE) == 0
    assert_as_before(before, lambda: place.look(network.balancer), 0.0)


@pytest.mark.parametrize(("variables", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_color_on_a_terminal_unless_no_color(
    network: Topology, place: Place, variables: dict[str, str], colored: bool
) -> None:
    network.balancer.ip(f"address add {network.vip}/32 dev lo")
    with terminal(network, place, **variables) as (process, ours):
        text = read_until(ours, "more: l4raw explain L4R-202")
        assert process.wait(DEADLINE) == 4
    assert bool(re.search(r"\x1b\[[\d;]*m", text)) == colored
