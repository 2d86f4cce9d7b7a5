"""`l4raw bench` as a person runs it, with turns that are too short for figures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from l4raw.bench.result import read
from tests.integration.capture import wait_for

pytestmark = [pytest.mark.root, pytest.mark.xdp]

BENCH = [sys.executable, "-m", "l4raw", "bench", "--pairs", "2", "--seconds", "0.005"]


def bench(file: Path, *args: str) -> dict[str, Any]:
    done = subprocess.run([*BENCH, *args, "--json", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "saturated, Mpps" in done.stdout
    return read(file)


def processes_of(folder: Path) -> list[str]:
    """Those with this folder for temporary files: the benchmark's, and those that are its networks."""
    wanted = b"TMPDIR=" + os.fsencode(folder)
    return [
        path.name
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and wanted in _environment(path).split(b"\0")
    ]


def _environment(path: Path) -> bytes:
    try:
        return (path / "environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("dsr-l2", ()),
        ("nat", ()),
        ("fullnat", ("--protocol", "tcp")),
        ("dsr-ipip", ()),
        ("dsr-gue", ("--protocol", "tcp", "--changes")),
    ],
)
def test_the_kernel_path_sends_all_frames(mode: str, more: tuple[str, ...], tmp_path: Path) -> None:
    found = bench(tmp_path / "a.json", "--mode", mode, "--flows", "100", *more)
    saturated = found["saturated"]
    assert found["setting"]["mode"] == mode and found["setting"]["flows"] == 100
    assert saturated["by_kernel"] == pytest.approx(1.0, abs=0.01)
    assert min(saturated[who]["low"] for who in ("rate", "bare")) > 0
    assert saturated["lost"] == sum(saturated["drops"].values())


def test_af_xdp_says_where_its_drops_are(tmp_path: Path) -> None:
    found = bench(tmp_path / "a.json", "--dataplane", "af_xdp", "--seconds", "0.02")
    saturated = found["saturated"]
    assert saturated["by_kernel"] == 0 and saturated["rate"]["median"] > 0
    assert saturated["lost"] == sum(saturated["drops"].values())
    assert not saturated["lost"] or saturated["drops"].get("receive_lost")


def test_raw_is_measured_too(tmp_path: Path) -> None:
    found = bench(tmp_path / "a.json", "--dataplane", "raw", "--seconds", "0.1", "--flows", "50")
    assert found["saturated"]["rate"]["median"] > 0


def test_nothing_is_left_when_it_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*BENCH, "--pairs", "5000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stderr is not None
    while "saturated" not in process.stderr.readline():
        assert process.poll() is None
    assert len(processes_of(tmp_path)) > 3, "itself, generator, balancer and hosts"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    wait_for(lambda: not processes_of(tmp_path), "its processes are gone")


def test_what_was_raised_is_put_back_after_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "most"
    file.write_text("7\n")
    code = f"""
import sys
from pathlib import Path
from tests.bench.nftables import raised
with raised(Path({str(file)!r}), 9):
    print("raised", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "raised\n"
    assert file.read_text() == "9\n"
    process.kill()
    process.communicate()
    wait_for(lambda: file.read_text() == "7\n", "put back")
