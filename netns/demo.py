"""`make demo`: real requests to real servers, through the balancer, in every mode.

For each combination: build the network, start a web server on each backend
and the balancer in its namespace, fetch the same address 300 times, and say
who answered, which way the replies went, and what happened to one packet.
Then stop the balancer, see that the next request fails, that its namespace is
as it was and that this host has nothing of it. Exits with 1 if any of that is
not so.
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from .clients import curl, many_requests
from .dsr import dsr
from .host import CommandError, Host, NamespaceError
from .nat import nat
from .process import Log, environment, temporary_folder, tool
from .servers import web
from .tap import Failed, Tap
from .topology import NO_CHECK, Topology

REQUESTS: Final = 300
MODES: Final = {"dsr-l2": dsr, "nat": nat}
DATAPLANES: Final = ("raw", "af_xdp")
_READY_S: Final = 20.0
_REST_S: Final = 0.1
"""The wire is at rest when the counts stay the same for so long."""
_REST_LATEST_S: Final = 2.0

_NEXT: Final = "run it as root (sudo make demo), or in namespaces of your own (unshare -Urnm make demo)"
_TIME_WAIT, _LISTEN = "06", "0A"
"""States in /proc/net/tcp (include/net/tcp_states.h) in which nothing is sent any more."""


class Balancer:
    """`l4raw up` in the balancer's namespace."""

    def __init__(self, network: Topology, dataplane: str, folder: Path) -> None:
        config = folder / "l4raw.toml"
        # A check is a reply to the balancer: it would be counted as one through it.
        toml = network.config_toml("80/tcp", dataplane=dataplane, check=NO_CHECK, lb={"ring_seed": "demo"})
        config.write_text(toml)
        argv = [sys.executable, "-m", "l4raw", "up", "--json", "--trace", "1", "-c", str(config)]
        self.events: list[dict[str, Any]] = []
        self._run_dir = folder / "run"
        self._process = network.balancer.popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={**environment(), "L4RAW_RUN_DIR": str(self._run_dir)},
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
        """SIGTERM; its last word. Raises `Failed` if it leaves a file behind."""
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(_READY_S) != 0:
            raise Failed(f"the balancer ended with {self._process.returncode}: {self._errors()}")
        self._reader.join()
        left = [str(path) for path in self._run_dir.rglob("*")]
        if left:
            raise Failed(f"the balancer has left {', '.join(left)}")
        return self._event("stopped")


def namespace_state(host: Host) -> dict[str, str]:
    """What `up` could have changed in a namespace, as text."""
    commands = {
        "links": ["ip", "-j", "link"],
        "addresses": ["ip", "-j", "addr"],
        "routes": ["ip", "-j", "route", "show", "table", "all"],
        "sysctls": ["sysctl", "-a", "--pattern", r"ip_forward|rp_filter|arp_(ignore|announce|filter)"],
    }
    if tool("nft"):
        commands["nft"] = ["nft", "list", "ruleset"]
    return {what: host.run(command).stdout for what, command in commands.items()}


@contextmanager
def unchanged(host: Host) -> Iterator[None]:
    """Raises `Failed` if the namespace of `host`, in which nobody else is, is not as it was."""
    before = namespace_state(host)
    yield
    after = namespace_state(host)
    for what, text in before.items():
        if after[what] != text:
            raise Failed(f"{host.name}: {what} differ from before:\n{text}\n{after[what]}")


def traces(network: Topology) -> set[str]:
    """What this host itself has under names of `network` and its balancer. Others may use it meanwhile."""
    ports = {f"{host.name}-{link.interface}" for host in network.hosts for link in host.links}
    found = {name for _, name in socket.if_nameindex() if name in ports}
    if tool("nft"):
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, env=environment())
        # The balancer's name has the number of its namespace.
        marks = ("l4raw", str(network.balancer.inode))
        found |= {line for line in listed.stdout.splitlines() if all(mark in line for mark in marks)}
    return found


def counts_at_rest(network: Topology, taps: list[Tap], *, equal: bool) -> list[int]:
    """The taps' counts once nothing moves any more: the last FIN is later than the last answer.

    Every connection is closed, no count changes and, if so demanded, all are
    equal. After two seconds whatever they are then.
    """
    latest = time.monotonic() + _REST_LATEST_S
    counts, since = [tap.count() for tap in taps], time.monotonic()
    while time.monotonic() < latest:
        time.sleep(0.01)
        now = [tap.count() for tap in taps]
        at_rest = now == counts and _all_closed(network) and (not equal or len(set(now)) == 1)
        if not at_rest:
            counts, since = now, time.monotonic()
        elif time.monotonic() - since >= _REST_S:
            break
    return counts


def _all_closed(network: Topology) -> bool:
    for host in (network.client, *network.backends):
        rows = Path(f"/proc/{host.pid}/net/tcp").read_text().splitlines()[1:]
        if {row.split()[3] for row in rows} - {_TIME_WAIT, _LISTEN}:
            return False
    return True


def show(mode: str, dataplane: str) -> None:
    """One combination. Raises `Failed`."""
    print(f"\n=== {mode} over {dataplane}")
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder("l4raw-demo-"))
        network = stack.enter_context(MODES[mode](log=Log(silent=True)))
        print(f"{len(network.hosts)} namespaces in {network.build_seconds:.2f} s; the VIP is {network.vip}")
        before = traces(network)
        for backend in network.backends:
            stack.enter_context(web(backend))
        with unchanged(network.balancer):
            switch = next(host for host in network.hosts if host.name == "switch")
            ports = [f"balancer-{interface}" for interface in network.interfaces]
            taps = [Tap(switch, ports, sent=True), Tap(network.client, ["eth0"])]
            for tap in taps:
                stack.callback(tap.close)
            balancer = Balancer(network, dataplane, folder)
            answers = many_requests(network.client, f"http://{network.vip}/", REQUESTS)
            at_balancer, at_client = counts_at_rest(network, taps, equal=mode == "nat")
            last = balancer.stop()
        _report(mode, dataplane, answers, at_balancer, at_client, last, balancer.packet())
        _next_request_fails(network)
        if left := traces(network) - before:
            raise Failed(f"left on this host: {', '.join(sorted(left))}")
    print("balancer stopped: the next request fails; the host is as it was")


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


def _may_load_bpf() -> bool:
    """Only root of the machine's own user namespace may: user_namespaces(7), bpf(2)."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def main() -> int:
    """Every combination in turn."""
    try:
        planes = DATAPLANES if _may_load_bpf() else DATAPLANES[:1]
        for mode in MODES:
            for dataplane in planes:
                show(mode, dataplane)
        if planes != DATAPLANES:
            print(f"\nonly over {planes[0]}: the others load a BPF program, which a user namespace may not")
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    except NamespaceError as error:
        print(f"the demo cannot make network namespaces: {error.said}\n{_NEXT}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
