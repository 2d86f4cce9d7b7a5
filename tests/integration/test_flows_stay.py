"""A connection stays where it began: when `rr` has moved on, and when the ring is another one."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from l4raw.netns import NO_CHECK, Host, Log, Topology, dsr, nat

from l4raw.core.model import Backend
from l4raw.core.tables import Tables, compile_policy
from l4raw.engine.afxdp import AfXdpEngine
from l4raw.wire.abi import DROP_NO_FLOW, FORWARD
from tests.cells import halved
from tests.integration.capture import wait_until_quiet
from tests.integration.in_process import SEED, assert_no_frame_leaked, balancer_in_this_process
from tests.integration.napi import taking_redirected
from tests.integration.running import running

pytestmark = pytest.mark.root

Build = Callable[..., AbstractContextManager[Topology]]
each_mode = pytest.mark.parametrize("build", [dsr, nat])

PORT = 7
"""Echo: RFC 862."""
OPEN = 100
"""Connections that are held open."""
MANY = 1000
SHORT = 205
"""Connections in between; no multiple of three, so that rr ends elsewhere than it began."""
DEADLINE = 10.0


class Echo(socketserver.StreamRequestHandler):
    """Answers each line with the server's name and the line."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(self.server.name + b" " + line)  # type: ignore[attr-defined]


class EchoServer(socketserver.ThreadingTCPServer):
    """A thread for each connection; it ends when the client closes, or the server."""

    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, host: Host, port: int = PORT) -> None:
        self.name = host.name.encode()
        self._open: set[Any] = set()
        with host.enter():
            super().__init__(("", port), Echo)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """A client whose last segments were lost never closes; its thread would keep the socket."""
        super().server_close()
        for request in list(self._open):
            with suppress(OSError):  # It has ended meanwhile.
                request.shutdown(socket.SHUT_RDWR)


class Connection:
    """A client's connection to the VIP, left open."""

    def __init__(self, network: Topology, port: int = PORT, source: str = "") -> None:
        with network.client.enter():
            self._socket = socket.create_connection((network.vip, port), DEADLINE, (source, 0))
        self._lines = self._socket.makefile("rb")

    def ask(self, text: str) -> str:
        """Send a line; returns the name of the backend that echoed it."""
        self._socket.sendall(f"{text}\n".encode())
        name, _, echoed = self._lines.readline().decode().partition(" ")
        assert echoed == f"{text}\n"
        return name

    def mss(self) -> int:
        """The largest segment that this end sends now, in bytes of payload."""
        return self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@contextmanager
def echo_network(build: Build, ports: Iterable[int] = (PORT,)) -> Iterator[Topology]:
    """A network with an echo server on each backend, in threads of this process."""
    with build(log=Log(silent=True)) as network, ExitStack() as stack:
        for backend, port in product(network.backends, ports):
            server = stack.enter_context(EchoServer(backend, port))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
        yield network


def open_connections(network: Topology, count: int, stack: ExitStack) -> list[Connection]:
    """`count` connections; `stack` closes them."""
    opened = []
    for _ in range(count):
        opened.append(Connection(network))
        stack.callback(opened[-1].close)
    return opened


def short_connections(network: Topology, count: int) -> Counter[str]:
    """Open, ask, close, one after the other; returns who answered how often."""
    names: Counter[str] = Counter()
    for number in range(count):
        connection = Connection(network)
        names[connection.ask(f"short {number}")] += 1
        connection.close()
    return names


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@each_mode
def test_open_connections_stay_while_rr_moves_on(build: Build, dataplane: str) -> None:
    with echo_network(build) as network, ExitStack() as stack:
        with running(
            network, network.config_toml(f"{PORT}/tcp", scheduler="rr", dataplane=dataplane)
        ) as balancer:
            held = open_connections(network, OPEN, stack)
            began = [connection.ask("first") for connection in held]
            assert sorted(Counter(began).values()) == [33, 33, 34]  # each in turn
            between = short_connections(network, SHORT)
            assert sorted(between.values()) == [68, 68, 69]
            for text in ("second", "third"):
                assert [connection.ask(text) for connection in held] == began
            stack.close()
        assert balancer.counters["services"][0]["flows"] == OPEN + SHORT
        assert balancer.backends() == Counter(began) + between
        # Every frame but the first of a flow found its entry: SYN, ACK and three lines at the least.
        assert balancer.verdict("forward") >= 5 * OPEN
        assert balancer.verdict("drop_no_flow") == 0
        assert balancer.lost == 0


def swap_ring(tables: Tables, backends: tuple[Backend, ...]) -> None:
    """Put another set of backends in force, from the next frame on."""
    old = tables.policy
    hops = {entry.backend.address: (entry.next_hop, entry.arm) for entry in old.backends if entry}
    services = [replace(entry.service, backends=backends) for entry in old.by_number if entry]
    tables.install(compile_policy(services, hops, SEED, previous=old))


@pytest.mark.parametrize(
    ("build", "scheduler", "dataplane"), halved((dsr, nat), ("rr", "maglev", "modulo"), ("raw", "af_xdp"))
)
def test_open_connections_stay_when_the_ring_is_swapped(
    build: Build, scheduler: str, dataplane: str, tmp_path: Path
) -> None:
    with echo_network(build) as network, ExitStack() as stack:
        toml = network.config_toml(f"{PORT}/tcp", scheduler=scheduler, dataplane=dataplane)
        with balancer_in_this_process(network, toml, tmp_path) as balancer:
            tables = balancer.tables
            held = open_connections(network, OPEN, stack)
            began = [connection.ask("first") for connection in held]
            assert Counter(began).keys() == {"b1", "b2", "b3"}
            all_three = balancer.config.services[0].backends

            swap_ring(tables, all_three[2:])
            assert [connection.ask("second") for connection in held] == began
            assert short_connections(network, 20) == {"b3": 20}

            swap_ring(tables, all_three[::-1])
            assert [connection.ask("third") for connection in held] == began
            assert short_connections(network, 60).keys() == {"b1", "b2", "b3"}

            assert sum(tables.total_traffic(i).flows for i in range(len(tables.backends))) == OPEN + 80
            stack.close()
            if isinstance(balancer.engine, AfXdpEngine):
                wait_until_quiet(network)
                assert_no_frame_leaked(balancer.engine)
        # Every frame but the first of a flow found its entry: SYN, ACK and three lines at the least.
        assert tables.total_verdicts()[FORWARD] >= 5 * OPEN
        assert tables.total_verdicts()[DROP_NO_FLOW] == 0


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp", "xdp"])
def test_connections_stay_where_changes_alone_are_tracked(dataplane: str, tmp_path: Path) -> None:
    """Backends go and come one at a time under many connections; one of them is idle meanwhile."""
    with echo_network(dsr) as network, ExitStack() as stack:
        if dataplane == "xdp":
            stack.enter_context(taking_redirected(network))
        toml = network.config_toml(f"{PORT}/tcp", dataplane=dataplane, check=NO_CHECK)
        toml = toml.replace("[[service]]", '[[service]]\nflows = "track-changes"')
        with balancer_in_this_process(network, toml, tmp_path) as balancer:
            tables, every = balancer.tables, balancer.config.services[0].backends
            held = open_connections(network, MANY, stack)
            began = [connection.ask("first") for connection in held]
            assert Counter(began).keys() == {"b1", "b2", "b3"}
            assert len(tables.flows) == 0
            idle = [next(place for place, name in enumerate(began) if name == each) for each in ("b1", "b2")]

            for left in (every[1:], every, (every[0], every[2]), every):
                swap_ring(tables, left)
                asked = [(place, each) for place, each in enumerate(held) if place not in idle]
                assert [each.ask("again") for _, each in asked] == [began[place] for place, _ in asked]
                new = short_connections(network, 30)
                assert new.keys() <= {backend.name for backend in left}
            assert [held[place].ask("at last") for place in idle] == ["b1", "b2"]
            assert len(tables.flows) < MANY, "a third of the slots changes, and then another one"
            stack.close()
        assert tables.total_verdicts()[DROP_NO_FLOW] == 0
