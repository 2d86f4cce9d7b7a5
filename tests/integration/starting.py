"""`l4raw` as processes of a host, with folders of the test's own, and traffic that tells whether it forwards.

Lives here: how a test starts, kills and asks. Must not live here: what it
expects (the test files), and a balancer whose counters matter (running.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l4raw.netns import Host, Topology

from tests.integration.snapshot import Snapshot, snapshot, tree

DEADLINE = 15.0
PORT = 53
NOTHING_LEFT = "host is as it was"


@dataclass(frozen=True)
class Place:
    """The folders that an `l4raw` uses instead of the machine's."""

    root: Path

    def __post_init__(self) -> None:
        # A run folder that was there before stays; one that l4raw made goes with the last instance.
        for folder in (self.run, self.temporary):
            folder.mkdir()

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "L4RAW_RUN_DIR": str(self.run),
            "L4RAW_STATE_DIR": str(self.state),
            "XDG_STATE_HOME": str(self.root / "home"),
            "TMPDIR": str(self.temporary),
        }

    def config(self, toml: str) -> Path:
        """The text as a file."""
        path = self.root / "l4raw.toml"
        path.write_text(toml)
        return path

    def files(self) -> Snapshot:
        """A snapshot of all folders."""
        return {str(folder): list(tree(folder)) for folder in self.root.iterdir() if folder.is_dir()}

    def look(self, host: Host | None) -> Snapshot:
        """A snapshot of the host and of all folders."""
        return snapshot(host, self.run, self.state, self.temporary, self.root / "home")


def l4raw(*args: str | Path) -> list[str]:
    """The command line: the l4raw under test, with signals as at a terminal, whatever started the tests."""
    python = [sys.executable, "-P", "-m", "l4raw"]
    return ["env", "--default-signal=INT,HUP,TERM", *python, *map(str, args)]


class Up:
    """`l4raw up ...` in a host. stdout and stderr go to files, so that nothing waits for a reader."""

    def __init__(self, host: Host, place: Place, *args: str | Path, **options: Any) -> None:
        self._out, self._err = (place.root / f"{time.monotonic_ns()}-{name}" for name in ("out", "err"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            settings = {"stdout": out, "stderr": err, "env": place.environment()} | options
            self.process = host.popen(l4raw("up", *args), **settings)
        self._host = host

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Return once it holds; fail with all that was said when the process ends first."""
        until = time.monotonic() + DEADLINE
        while not condition():
            state = self.process.poll()
            late = time.monotonic() > until
            assert state is None and not late, f"{what}: not so; exit code {state}\n{self.out}{self.err}"
            time.sleep(0.005)

    def wait_ready(self) -> Up:
        """Return once the line is there."""
        self.wait_for(lambda: "ready" in self.out and self.out.endswith("\n"), "ready")
        return self

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its end; the exit code."""
        try:
            return int(self.process.wait(DEADLINE))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it goes on\n{self.out}{self.err}") from None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it as people do. It must say that nothing is left, and mean it by exit code 0."""
        self.send(number)
        assert self.end() == 0, self.err
        if self.out.startswith("{"):
            last = json.loads(self.out.splitlines()[-1])
            assert (last["event"], last["left"]) == ("stopped", 0)
        else:
            assert self.err.splitlines()[-1] == NOTHING_LEFT, self.err

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(DEADLINE)


def run(host: Host, place: Place, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """`l4raw ARGS` to its end."""
    pairs = [f"{key}={value}" for key, value in place.environment().items() if key not in os.environ]
    argv = l4raw(*args)
    return host.run([argv[0], *pairs, *argv[1:]], check=False, timeout=DEADLINE)


class Echo:
    """Answers every datagram on a backend, as the VIP under DSR."""

    def __init__(self, network: Topology) -> None:
        self._network = network
        self._threads: list[tuple[threading.Thread, socket.socket]] = []
        for backend in network.backends:
            with backend.enter():
                server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((network.vip if network.mode == "dsr-l2" else backend.address, PORT))
            thread = threading.Thread(target=self._answer, args=(server,), daemon=True)
            self._threads.append((thread, server))
            thread.start()

    @staticmethod
    def _answer(server: socket.socket) -> None:
        while (received := server.recvfrom(2048))[1]:  # no sender: shut down
            server.sendto(*received)

    def ask(self, timeout: float = DEADLINE) -> bool:
        """Does the VIP answer? Asked again for `timeout` seconds, each time as a new flow."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            with self._network.client.enter():
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with client, suppress(TimeoutError):
                client.settimeout(0.2)
                client.sendto(b"?", (self._network.vip, PORT))
                if client.recv(16) == b"?":
                    return True
        return False

    @contextmanager
    def flood(self) -> Iterator[None]:
        """Frames all the time, as long as the context lasts; at least one has been answered by then."""
        assert self.ask()
        with self._network.client.enter():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        done = threading.Event()

        def send() -> None:
            while not done.wait(0.001):
                with suppress(OSError):  # the VIP's neighbour entry fails once nobody answers
                    client.sendto(b"!", (self._network.vip, PORT))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            client.close()

    def close(self) -> None:
        for thread, server in self._threads:
            with suppress(OSError):  # ENOTCONN; its thread is woken all the same
                server.shutdown(socket.SHUT_RDWR)
            thread.join()
            server.close()


@contextmanager
def echo(network: Topology) -> Iterator[Echo]:
    """Echo servers on all backends."""
    servers = Echo(network)
    try:
        yield servers
    finally:
        servers.close()


def toml(network: Topology, **lb: object) -> str:
    """UDP port 53 on all backends, with a ring seed of the test's own."""
    return network.config_toml(f"{PORT}/udp", lb={"ring_seed": "test", **lb})
