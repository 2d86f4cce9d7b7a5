"""`l4raw down`: whose run folder it looks in, what it may not see, and when a balancer has ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from l4raw.cli import down, main

Run = Callable[..., Result]

HOLD = """
import os, signal, sys, time
from pathlib import Path
from l4raw.control.instance import Instance
instance = Instance("eth1", Path(sys.argv[1]))
instance.acquire([])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("held", flush=True)
signal.sigwait([signal.SIGTERM])
instance.release()
time.sleep(float(sys.argv[2]))
"""
"""A balancer that gives its locks back and then takes its time to end."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `l4raw down` with a folder `system` that stands for /run/l4raw and may not be written to."""
    for name in ("L4RAW_RUN_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("l4raw.control.lock.SYSTEM_RUN_DIR", tmp_path / "system")
    monkeypatch.setattr("l4raw.control.lock.os.access", lambda *_: False)
    return lambda *args: CliRunner().invoke(main.cli, ("down", *args))


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on we are a user who owns nothing."""
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000)


def hold(run_dir: Path, lingers: str = "0") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir), lingers], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def refused(result: Result, folder: Path) -> None:
    assert result.exit_code == 5, result.output
    assert result.stderr.startswith(f"error L4R-301: needs root: {folder} "), result.stderr
    assert "fix: run it with sudo" in result.stderr


@pytest.mark.parametrize("name", [(), ("eth1",)], ids=["no-name", "named"])
def test_roots_folder_is_named_where_ours_has_nothing(
    run: Run, tmp_path: Path, name: tuple[str, ...]
) -> None:
    (tmp_path / "system").mkdir()
    refused(run(*name), tmp_path / "system")


@pytest.mark.parametrize("name", [(), ("eth1",)], ids=["no-name", "named"])
def test_our_own_balancer_is_stopped_also_beside_roots(
    run: Run, tmp_path: Path, name: tuple[str, ...]
) -> None:
    (tmp_path / "system").mkdir()
    process = hold(tmp_path / "user" / "l4raw")
    result = run(*name)
    assert (result.exit_code, result.stderr) == (0, "stopped: instance eth1\n")
    assert process.wait(10) == 0


@pytest.mark.parametrize("name", [(), ("eth1",)], ids=["no-name", "named"])
@pytest.mark.parametrize("filled", [True, False])
def test_a_shared_folder_of_another_user(
    run: Run,
    tmp_path: Path,
    somebody: None,
    monkeypatch: pytest.MonkeyPatch,
    name: tuple[str, ...],
    filled: bool,
) -> None:
    shared = tmp_path / "shared"
    (shared / "eth1").mkdir(parents=True) if filled else shared.mkdir()
    monkeypatch.setenv("L4RAW_RUN_DIR", str(shared))
    refused(run(*name), shared)


@pytest.mark.parametrize("name", [(), ("eth1",)], ids=["no-name", "named"])
def test_a_folder_that_may_not_even_be_looked_at(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: tuple[str, ...]
) -> None:
    hidden, look = tmp_path / "shared", os.stat

    def refuse(path: object, *args: object, **options: object) -> os.stat_result:
        if path == hidden:
            raise PermissionError(13, "Permission denied", str(hidden))
        return look(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setenv("L4RAW_RUN_DIR", str(hidden))
    monkeypatch.setattr("os.stat", refuse)
    refused(run(*name), hidden)


def test_nothing_runs_and_nothing_is_hidden(run: Run) -> None:
    result = run()
    assert (result.exit_code, result.stderr) == (0, "no instance is running; nothing to undo\n")


def test_what_does_not_run_is_not_answered_with_how_to_start(run: Run, tmp_path: Path) -> None:
    result = run("eth9")
    assert result.exit_code == 6
    assert result.stderr.startswith("error L4R-401: no instance eth9 is running")
    assert "l4raw up" not in result.stderr
    process = hold(tmp_path / "user" / "l4raw")
    assert "fix: name one that runs: eth1" in run("eth9").stderr
    process.send_signal(signal.SIGTERM)
    process.wait(10)


def test_stopped_means_that_the_process_is_gone(run: Run, tmp_path: Path) -> None:
    process = hold(tmp_path / "user" / "l4raw", lingers="0.7")
    assert run().exit_code == 0
    # Z: it has exited, and we, its parent, have not asked for its exit code.
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "Z"
    assert process.wait(10) == 0


def test_a_process_that_does_not_end_is_no_crash(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(down, "_WAIT_S", 0.2)
    process = hold(tmp_path / "user" / "l4raw", lingers="60")
    result = run()
    process.kill()
    process.wait(10)
    assert result.exit_code == 1
    assert re.match(r"error L4R-402: process \d+ did not end within 0\.2 s of SIGTERM", result.stderr)
    assert "no crash file" in result.stderr
