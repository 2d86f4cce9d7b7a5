"""Cables for AF_XDP: a kernel at one end, sockets of l4raw.xdp at the other.

Lives here: the networks and what fills them with traffic. Must not live here:
what a test expects.

    cable():   left eth0 ---------------- eth0 right
    between(): left eth0 --- eth0 middle eth1 --- eth0 right

Checksum offload is off at the ends: a sender on this machine would leave
partial checksums, and AF_XDP has no flag for them. Neighbours are static:
ARP is not what is tested.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from l4raw.netns import Host, Log

from l4raw.xdp import Frame, PassToSocket, Umem, XskSocket

LEFT, RIGHT = "10.99.0.1", "10.99.0.2"
LEFT_MAC, RIGHT_MAC = "02:00:00:00:99:01", "02:00:00:00:99:02"
ADDRESS = {"left": (LEFT, LEFT_MAC, RIGHT, RIGHT_MAC), "right": (RIGHT, RIGHT_MAC, LEFT, LEFT_MAC)}
DEADLINE = 10.0
ECHO = 7


def host(name: str, stack: ExitStack) -> Host:
    made = stack.enter_context(Host(name, Log(silent=True)))
    made.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    made.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
    made.ip("link set lo up")
    return made


def connect(one: Host, other: Host, names: tuple[str, str], queues: int) -> None:
    count = f"numrxqueues {queues} numtxqueues {queues}"
    one.ip(f"link add {names[0]} {count} type veth peer name {names[1]} {count} netns {other.pid}")
    one.ip(f"link set {names[0]} up")
    other.ip(f"link set {names[1]} up")


def configure(end: Host) -> None:
    """Address, static neighbour, no offload of checksums."""
    own, mac, other, other_mac = ADDRESS[end.name]
    end.ip(
        f"link set eth0 address {mac}",
        f"addr add {own}/24 dev eth0",
        f"neigh add {other} lladdr {other_mac} dev eth0 nud permanent",
    )
    end.run(["ethtool", "-K", "eth0", "tx", "off"])
    features = end.run(["ethtool", "-k", "eth0"]).stdout
    assert "tx-checksumming: off" in features
    assert "tx-tcp-segmentation: off" in features


@contextmanager
def cable(queues: int = 1) -> Iterator[tuple[Host, Host]]:
    """Two hosts and a veth pair."""
    with ExitStack() as stack:
        left, right = host("left", stack), host("right", stack)
        connect(left, right, ("eth0", "eth0"), queues)
        configure(left)
        configure(right)
        yield left, right


@contextmanager
def between() -> Iterator[tuple[Host, Host, Host]]:
    """Two hosts with one in the middle that has no address and forwards nothing by itself."""
    with ExitStack() as stack:
        left, middle, right = (host(name, stack) for name in ("left", "middle", "right"))
        connect(left, middle, ("eth0", "eth0"), 1)
        connect(right, middle, ("eth0", "eth1"), 1)
        configure(left)
        configure(right)
        yield left, middle, right


def udp(end: Host, port: int = 0) -> socket.socket:
    """A UDP socket of a host, with a deadline; the caller closes it."""
    with end.enter():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(DEADLINE)
    if port:
        made.bind(("", port))
    return made


def received(xsk: XskSocket, count: int) -> list[Frame]:
    """The next `count` frames; fails at the deadline."""
    found: list[Frame] = []
    while len(found) < count:
        assert xsk.wait(DEADLINE), f"{len(found)} of {count} frames after {DEADLINE:g} s"
        found += xsk.receive(count - len(found))
    return found


def xdp_on(end: Host, interface: str = "eth0") -> int:
    """The id of the program that `ip` shows on an interface, 0 for none."""
    (link,) = json.loads(end.run(["ip", "-j", "-d", "link", "show", "dev", interface]).stdout)
    return int(link.get("xdp", {}).get("prog", {}).get("id", 0))


@contextmanager
def opened(
    end: Host, *interfaces: str, umem: Umem, accept: tuple[int, int] | None = (0, 0)
) -> Iterator[list[XskSocket]]:
    """A socket on queue 0 of each interface, and a program of each that redirects `accept` to it."""
    with ExitStack() as stack:
        sockets = []
        with end.enter():
            for interface in interfaces:
                xsk = stack.enter_context(XskSocket(umem, interface, 0))
                program = stack.enter_context(PassToSocket())
                program.sockets.update(0, xsk)
                if accept is not None:
                    program.accept(*accept)
                stack.enter_context(program.attach(interface))
                sockets.append(xsk)
        yield sockets


@dataclass
class Forwarder:
    """Frames of each of two sockets go out of the other; in a thread, until the context ends."""

    one: XskSocket
    other: XskSocket
    forwarded: int = 0
    dropped: int = 0
    problems: list[BaseException] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert not self.problems, self.problems

    def _run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.one.wait(0.001)
                self.step(self.one, self.other)
                self.step(self.other, self.one)
        except BaseException as error:
            self.problems.append(error)

    def step(self, source: XskSocket, target: XskSocket) -> None:
        frames = source.receive()
        sent = target.send(frames)
        target.umem.free(frames[sent:])
        self.forwarded += sent
        self.dropped += len(frames) - sent
