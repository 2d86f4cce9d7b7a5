"""`make demo`: real requests to real servers, through the balancer, in every mode.

For each combination: build the network, start a web server on each backend
and the balancer in its namespace, fetch the same address 300 times, and say
who answered, which way the replies went, and what happened to one packet.
Then stop the balancer, see that the next request fails, and that nothing is
left. Exits with 1 if any of that is not so.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from l4raw.wire.headers import Headers, parse

from .clients import curl, many_requests
from .dsr import dsr
from .host import CommandError, Host
from .nat import nat
from .process import Log, temporary_folder
from .servers import web
from .topology import Topology

REQUESTS: Final = 300
MODES: Final = {"dsr-l2": dsr, "nat": nat}
DATAPLANES: Final = ("raw",)
_PORT: Final = 80
_READY_S: Final = 20.0

_SOL_PACKET: Final = 263
_PACKET_IGNORE_OUTGOING: Final = 23
_ETH_P_IP: Final = 0x0800


class Failed(RuntimeError):
    """Something that the demo promises was not so."""


class Tap:
    """Counts the frames that a host receives from port 80: the web servers' replies."""

    def __init__(self, host: Host, interfaces: list[str]) -> None:
        self.replies = 0
        self._sockets = []
        with host.enter():
            for interface in interfaces:
                tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
                tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
                tap.bind((interface, _ETH_P_IP))
                self._sockets.append(tap)

    def count(self) -> int:
        """Read what has come so far; how many replies there were in all."""
        for tap in self._sockets:
            while True:
                try:
                    headers = parse(tap.recv(1 << 16, socket.MSG_DONTWAIT))
                except BlockingIOError:
                    break
                if isinstance(headers, Headers) and headers.sport == _PORT:
                    self.replies += 1
        return self.replies

    def close(self) -> None:
        for tap in self._sockets:
            tap.close()


class Balancer:
    """`l4raw up` in the balancer's namespace."""

    def __init__(self, network: Topology, dataplane: str, folder: Path) -> None:
        config = folder / "l4raw.toml"
        config.write_text(network.config_toml("80/tcp", dataplane=dataplane, lb={"ring_seed": "demo"}))
        argv = [sys.executable, "-m", "l4raw", "up", "--json", "--trace", "1", "-c", str(config)]
        self.events: list[dict[str, Any]] = []
        self._process = network.balancer.popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder
        )
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(_READY_S) or not self._event("ready"):
            self._process.kill()
            raise Failed(f"the balancer did not start: {self._errors()}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == "ready":
                self._ready.set()
        self._ready.set()

    def _event(self, name: str) -> dict[str, Any]:
        return next((event for event in self.events if event["event"] == name), {})

    def _errors(self) -> str:
        assert self._process.stderr is not None
        return str(self._process.stderr.read()).strip()

    def packet(self) -> list[str]:
        """The first frame before and after, as the balancer's own decision tells it."""
        return [str(line) for line in self._event("frame").get("text", [])]

    def stop(self) -> dict[str, Any]:
        """SIGTERM; its last word."""
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(_READY_S) != 0:
            raise Failed(f"the balancer ended with {self._process.returncode}: {self._errors()}")
        self._reader.join()
        return self._event("stopped")


def host_state(run: Callable[[list[str]], str]) -> dict[str, str]:
    """What `up` could have changed, as text."""
    commands = {
        "links": ["ip", "-j", "link"],
        "addresses": ["ip", "-j", "addr"],
        "routes": ["ip", "-j", "route"],
        "sysctls": [
            "sysctl",
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.conf.all.arp_ignore",
        ],
        "nft": ["nft", "list", "ruleset"] if shutil.which("nft") else ["true"],
    }
    return {what: run(command) for what, command in commands.items()}


@contextmanager
def unchanged(where: str, run: Callable[[list[str]], str]) -> Iterator[None]:
    """Raises `Failed` if the host is not as it was."""
    before = host_state(run)
    yield
    after = host_state(run)
    for what, text in before.items():
        if after[what] != text:
            raise Failed(f"{where}: {what} differ from before:\n{text}\n{after[what]}")


def _here(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def show(mode: str, dataplane: str) -> None:
    """One combination. Raises `Failed`."""
    say = print
    say(f"\n=== {mode} over {dataplane}")
    with ExitStack() as stack:
        stack.enter_context(unchanged("this host", _here))
        folder = stack.enter_context(temporary_folder("l4raw-demo-"))
        network = stack.enter_context(MODES[mode](log=Log(silent=True)))
        say(f"{len(network.hosts)} namespaces in {network.build_seconds:.2f} s; the VIP is {network.vip}")
        for backend in network.backends:
            stack.enter_context(web(backend))
        inside = lambda command: str(network.balancer.run(command).stdout)  # noqa: E731
        with unchanged("the balancer's namespace", inside):
            taps = [Tap(network.balancer, network.interfaces), Tap(network.client, ["eth0"])]
            for tap in taps:
                stack.callback(tap.close)
            balancer = Balancer(network, dataplane, folder)
            answers = many_requests(network.client, f"http://{network.vip}/", REQUESTS)
            last = balancer.stop()
        at_balancer, at_client = (tap.count() for tap in taps)
        _report(mode, dataplane, answers, at_balancer, at_client, last, balancer.packet())
        _next_request_fails(network)
    say("balancer stopped: the next request fails; the host is as it was")


def _report(
    mode: str,
    dataplane: str,
    answers: dict[str, int],
    at_balancer: int,
    at_client: int,
    last: dict[str, Any],
    packet: list[str],
) -> None:
    bodies = {name.strip(): count for name, count in answers.items() if name.strip() in ("b1", "b2", "b3")}
    answered = sum(bodies.values())
    print(f"{mode} over {dataplane}: {answered}/{REQUESTS} answered")
    print("requests: " + ", ".join(f"{name} {count}" for name, count in sorted(bodies.items())))
    print(f"replies: {at_client} frames reached the client, {at_balancer} of them through the balancer")
    print("one packet, as the balancer decided it:")
    print("\n".join(f"  {line}" for line in packet))
    expected = at_client if mode == "nat" else 0
    forwarded = last["counters"]["verdicts"]["reply"]
    if answered != REQUESTS or len(bodies) != 3:
        raise Failed(f"not every request was answered by one of three backends: {dict(answers)}")
    if at_balancer != expected or forwarded != expected:
        raise Failed(
            f"{at_balancer} replies seen at the balancer and {forwarded} forwarded, expected {expected}"
        )
    if not packet:
        raise Failed("the balancer showed no packet")


def _next_request_fails(network: Topology) -> None:
    try:
        body = curl(network.client, f"http://{network.vip}/", timeout=1.0)
    except CommandError:
        return
    raise Failed(f"the balancer is gone, and yet somebody answers: {body}")


def main() -> int:
    """Every combination in turn."""
    try:
        for mode in MODES:
            for dataplane in DATAPLANES:
                show(mode, dataplane)
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
