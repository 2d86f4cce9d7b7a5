"""A balancer with health checks before real web servers, of which one stops and comes back.

Lives here: the network in operation, and that story, for every mode. Must not live here: pytest, which modes
there are and what else is expected (test_health.py, test_health_tunnels.py).
"""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from l4raw.netns import Log, Topology
from l4raw.netns.clients import many_requests
from l4raw.netns.servers import nginx

from tests.integration.capture import Capture
from tests.integration.starting import Place, Up

Build = Callable[..., AbstractContextManager[Topology]]
INTERVAL_MS, TIMEOUT_MS, RISE, FALL = 300, 200, 2, 3
CHECK = {"interval": f"{INTERVAL_MS}ms", "timeout": f"{TIMEOUT_MS}ms", "rise": RISE, "fall": FALL}
WITHIN_S = (FALL * INTERVAL_MS + TIMEOUT_MS) / 1000
"""A backend that stops just after a check is told to be down after this time at the latest."""
SLACK_S = 2.0
"""Of a loaded machine, and `up` tells once a second."""
SYN_ACK = 0x12
NAME = "port-80-tcp"


class Web:
    """nginx on every backend, each of which can be stopped and started."""

    def __init__(self, network: Topology, stack: ExitStack) -> None:
        self._stacks = {backend.name: stack.enter_context(ExitStack()) for backend in network.backends}
        self._hosts = {backend.name: backend for backend in network.backends}
        for name in self._hosts:
            self.start(name)

    def start(self, name: str) -> None:
        self._stacks[name].enter_context(nginx(self._hosts[name]))

    def stop(self, name: str) -> None:
        self._stacks[name].close()


@contextmanager
def balanced(
    build: Build, dataplane: str, place: Place, version: int = 4, edit: Callable[[str], str] = str
) -> Iterator[tuple[Any, ...]]:
    """A network, its web servers, a running balancer. `edit`: what becomes of its configuration first."""
    with build(version=version, log=Log(silent=True)) as network, ExitStack() as stack:
        web = Web(network, stack)
        toml = network.config_toml(dataplane=dataplane, check=CHECK, lb={"ring_seed": "health"})
        up = Up(network.balancer, place, "-c", place.config(edit(toml))).wait_ready()
        yield network, web, up
        up.stop()


def answers(network: Topology, count: int = 60) -> Counter[str]:
    return many_requests(network.client, f"http://{network.vip_host}/", count)


def told(up: Up, name: str, state: str) -> bool:
    return f"backend {NAME}/{name} {state}" in up.err


class Client:
    """HTTP connections that stay open: RFC 9112, section 9.3."""

    def __init__(self, network: Topology, count: int, stack: ExitStack) -> None:
        self._open = []
        for _ in range(count):
            with network.client.enter():
                sock = stack.enter_context(socket.create_connection((network.vip, 80), 5))
            self._open.append((sock, stack.enter_context(sock.makefile("rb"))))

    def ask(self) -> list[str | None]:
        """Who answers on each connection; None: it is closed."""
        return [self._ask(sock, lines) for sock, lines in self._open]

    @staticmethod
    def _ask(sock: socket.socket, lines: Any) -> str | None:
        headers: dict[str, str] = {}
        try:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            lines.readline()
            while line := lines.readline().decode().strip():
                key, _, value = line.partition(": ")
                headers[key] = value
            lines.read(int(headers.get("Content-Length", 0)))
        except OSError:
            return None
        return headers.get("X-Backend")


def one_stops_and_returns(
    build: Build, dataplane: str, place: Place, version: int, edit: Callable[[str], str] = str
) -> None:
    """A server that stops gets no new connection within the check's time, and again some when it is back."""
    with balanced(build, dataplane, place, version, edit) as (network, web, up), ExitStack() as stack:
        assert answers(network).keys() == {"b1", "b2", "b3"}
        held = Client(network, 30, stack)
        began = held.ask()
        assert set(began) == {"b1", "b2", "b3"}

        web.stop("b2")
        stopped = time.monotonic()
        up.wait_for(lambda: told(up, "b2", "down"), "b2 is down")
        took = time.monotonic() - stopped
        assert took < WITHIN_S + SLACK_S
        # The first result of all counts alone, if it comes only now.
        counted = rf"\(({FALL} of {FALL}|1 of 1)\)"
        assert re.search(f"^backend {NAME}/b2 down: connection refused {counted}$", up.err, re.MULTILINE)
        assert answers(network).keys() == {"b1", "b3"}
        # Connections of the others have not moved: each is answered by who answered it first.
        assert held.ask() == [None if name == "b2" else name for name in began]

        web.start("b2")
        up.wait_for(lambda: told(up, "b2", f"up ({RISE} of {RISE})"), "b2 is up again")
        assert answers(network).keys() == {"b1", "b2", "b3"}
        assert held.ask() == [None if name == "b2" else name for name in began]


def handshakes(seen: Capture) -> list[Any]:
    """SYNs that came: where no client is, a balancer's."""
    return [p for p in seen.received() if p.haslayer("TCP") and p["TCP"].flags == "S"]
