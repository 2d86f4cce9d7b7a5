"""What a start costs: the time of `l4raw --help`, what is imported for it, and what `import l4raw` needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELP_S = 0.150
RUNS = 30
"""At most: other tests disturb the caches of this one, and one undisturbed run is proof."""

HEAVY = {"scapy", "pyroute2", "pydantic", "pydantic_core", "rich", "cffi", "_cffi_backend", "l4raw._native"}
"""By the full name of a module, or of its package."""


def python(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python from an empty environment but for what finds the l4raw under test."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=environment, cwd="/", check=False
    )


def imported_by(*args: str) -> set[str]:
    """Full names of all modules, and of their packages, that a run of l4raw imports."""
    done = python("-X", "importtime", "-m", "l4raw", *args)
    assert done.returncode == 0, done.stderr
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "l4raw.cli.main" in names, "this is not how Python tells what it imports"
    return names | {name.partition(".")[0] for name in names}


def test_help_is_fast() -> None:
    taken = []
    for _ in range(RUNS):
        taken.append(time_of("-m", "l4raw", "--help"))
        if taken[-1] < HELP_S:
            return
    pytest.fail(f"the fastest of {RUNS} runs took {min(taken) * 1000:.0f} ms")


def time_of(*args: str) -> float:
    """Seconds that it takes by the clock, but for those in which others had the processor."""
    begin = time.perf_counter()
    with subprocess.Popen([sys.executable, *args], stdout=subprocess.DEVNULL) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        taken = time.perf_counter() - begin
        # Documentation/scheduler/sched-stats.rst: on the CPU, waiting for it, both in ns; turns.
        _, waited, _ = Path(f"/proc/{process.pid}/schedstat").read_text().split()
        assert process.wait() == 0
    return taken - int(waited) / 1e9


@pytest.mark.parametrize("args", [("--help",), ("--version",)], ids=" ".join)
def test_nothing_heavy_is_imported(args: tuple[str, ...]) -> None:
    imported = imported_by(*args)
    assert "click" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("command", ["up", "down", "check", "explain", "config"])
def test_the_help_of_a_command_imports_nothing_heavy(command: str) -> None:
    assert not imported_by(command, "--help") & HEAVY


def test_listing_the_codes_imports_nothing_heavy() -> None:
    assert not imported_by("explain") & HEAVY


WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "l4raw._native" or name.partition(".")[0] in ("cffi", "_cffi_backend"):
            raise ModuleNotFoundError(f"no module {name}", name=name)

sys.meta_path.insert(0, Absent())
import l4raw
from l4raw.core.steer import steer
from l4raw.engine import native, raw, replay
assert not native.available()
print(l4raw.__version__, native.status())
"""


def test_import_needs_no_compiled_part_and_no_root() -> None:
    """As an ordinary user with an empty PATH, where nothing can be compiled or found."""
    as_nobody = []
    if not os.geteuid():
        # The one capability lets it read the program, wherever that is.
        keep = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        setpriv = shutil.which("setpriv")
        assert setpriv, "part of util-linux"
        as_nobody = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", *keep]
    done = subprocess.run(
        [*as_nobody, sys.executable, "-c", WITHOUT],
        capture_output=True,
        text=True,
        env={"PATH": "/nonexistent", "PYTHONPATH": str(ROOT)},
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0.")
    assert "not built: " in done.stdout
