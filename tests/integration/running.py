"""`l4raw up` as a process of its own in a network's balancer, and its counters when it has ended.

Lives here: how tests start and stop the product from outside, by its command
line. Must not live here: what a test expects of the traffic.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l4raw.netns import Host, Topology
from l4raw.netns.process import temporary_folder

DEADLINE = 20.0
"""Seconds for the start, address probe included, and for the end."""


@dataclass
class Running:
    """A balancer. What is marked "afterwards" is there once `running` has stopped it."""

    process: subprocess.Popen[Any]
    ready: dict[str, Any]
    """The event of that name."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Afterwards: all that came later, the last one `stopped`."""
    counters: dict[str, Any] = field(default_factory=dict)
    """Afterwards: those of the event `stopped`."""
    errors: str = ""
    """Afterwards: stderr."""

    def verdict(self, name: str) -> int:
        """Afterwards: how many frames ended in this verdict."""
        return int(self.counters["verdicts"][name])

    @property
    def dataplane(self) -> str:
        """The one that was chosen."""
        return str(self.ready["dataplane"])

    @property
    def lost(self) -> int:
        """Afterwards: frames lost because the balancer or the egress interface had no room."""
        return int(self.counters["engine"]["receive_lost"]) + self.verdict("drop_tx")

    def backends(self, key: str = "flows") -> dict[str, int]:
        """Afterwards: one counter of every backend, by its name, over all services."""
        found: dict[str, int] = {}
        for backend in self.counters["backends"]:
            found[backend["name"]] = found.get(backend["name"], 0) + (backend[key] or 0)
        return found


@contextmanager
def running(network: Topology, toml: str, *args: str) -> Iterator[Running]:
    """Start `l4raw up` with this configuration, yield once it is ready, stop it by SIGTERM.

    `args` follow on the command line. Its run and state folders are temporary
    ones. Afterwards it must have ended with 0, without a traceback and with
    nothing left on the host.
    """
    with temporary_folder("l4raw-up-") as folder:
        process, said = start(network.balancer, toml, folder, *args)
        try:
            balancer = Running(process, _ready(process, said))
            yield balancer
            _stop(balancer, said)
        finally:
            network.balancer.end(process)
            assert process.stdout is not None
            process.stdout.close()


def start(host: Host, toml: str, folder: Path, *args: str) -> tuple[subprocess.Popen[Any], Path]:
    """Start `l4raw up --json` in a host; returns the process and the file that takes its stderr."""
    config, said = folder / "l4raw.toml", folder / "stderr"
    config.write_text(toml)
    # -P and our own path: the l4raw that is tested, whatever the current folder.
    argv = [sys.executable, "-P", "-m", "l4raw", "up", "--json", "-c", str(config), *args]
    places = {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "L4RAW_RUN_DIR": str(folder / "run"),
        "L4RAW_STATE_DIR": str(folder / "state"),
    }
    with said.open("w") as errors:
        process = host.popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **places},
            text=False,
            bufsize=0,
        )
    return process, said


def _ready(process: subprocess.Popen[Any], said: Path) -> dict[str, Any]:
    assert process.stdout is not None
    until = time.monotonic() + DEADLINE
    # Unbuffered, and its first line is written at once: what select() announces is the whole line.
    if not select.select([process.stdout], [], [], until - time.monotonic())[0]:
        raise AssertionError(f"not ready within {DEADLINE:g} s: {said.read_text()}")
    line = process.stdout.readline()
    assert line, f"ended before it was ready: {said.read_text()}"
    event: dict[str, Any] = json.loads(line)
    assert event["schema"] == "l4raw.up/1"
    assert event["event"] == "ready"
    return event


def _stop(balancer: Running, said: Path) -> None:
    process = balancer.process
    assert process.poll() is None, f"ended by itself with {process.returncode}: {said.read_text()}"
    process.send_signal(signal.SIGTERM)
    try:
        output, _ = process.communicate(timeout=DEADLINE)
    finally:
        balancer.errors = said.read_text()
    assert process.returncode == 0, f"exit code {process.returncode}: {balancer.errors}"
    assert "Traceback" not in balancer.errors, balancer.errors
    balancer.events = [json.loads(line) for line in output.splitlines()]
    last = balancer.events[-1]
    assert last["event"] == "stopped"
    assert last["left"] == 0
    balancer.counters = last["counters"]
