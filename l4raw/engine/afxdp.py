"""The AF_XDP engine: queues in C, and what they leave to Python.

Queue q of every interface has one thread, which owns socket q of each and a
share of the frames; it receives, steers, rewrites and sends in C
(native/src/burst.c). `poll` hands out only the frames that it could not
decide, so the loop around an engine (base.py) is the same as with any other.

Lives here: the order in which all of that is opened and closed. Must not live
here: how frames move (burst.c), what is in the tables (shared.py).
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from errno import EINVAL, ENODEV, ERANGE
from typing import Any, Final, Self

from l4raw.core.hashing import HashKey
from l4raw.core.tables import Arm
from l4raw.engine import burst
from l4raw.engine.base import Received
from l4raw.engine.burst import Missed, Worker
from l4raw.engine.layout import Sizes
from l4raw.engine.readable import readable
from l4raw.engine.redirect import FORWARD, QUEUES, REDIRECT, Program, Redirect, possible_cpus
from l4raw.engine.shared import SharedTables
from l4raw.wire import ethernet
from l4raw.xdp import Accounting, FrameError, Umem, XskSocket
from l4raw.xdp.host import mtu, rx_queues
from l4raw.xdp.program import wait_for_programs

FRAMES: Final = 4096
"""Of each queue: half for receiving, half on their way out or with Python."""
TX: Final = FRAMES // 4
"""Slots of a TX ring: a stuck egress keeps no more, and leaves the rest for what goes elsewhere."""
SAMPLED: Final = 4096
"""Frames that Python decides at most, where it was asked for some that are sent and there are none."""
CHUNK: Final = 2048
"""Bytes of a frame in the UMEM."""
MOST_BYTES: Final = CHUNK - 256
"""XDP_PACKET_HEADROOM stays free in front of a received frame."""
ETHERNET: Final = 14 + 4
"""Header and one VLAN tag."""


class AfXdpEngine:
    """AF_XDP sockets on every queue of each arm. Makes the tables too, for the kernel reads some of them.

    Needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF until it is open.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        hash_key: HashKey,
        sizes: Sizes,
        sample: int = 0,
        program: Program = REDIRECT,
    ) -> None:
        """Loads the program and makes the tables. Raises `OSError` when something is missing or refused.

        All frames are left to Python until `sample` of them were sent, or SAMPLED came, so that their
        decisions can be shown.
        """
        burst.require()
        self._arms = tuple(arms)
        self._open = ExitStack()
        self.queues = common_queues([arm.name for arm in arms])
        self.zero_copy = False
        self._sample = sample
        self._in_kernel, self._allowed, self._deciding = program is FORWARD, False, threading.Lock()
        sizes = replace(sizes, queues=self.queues, cpus=possible_cpus() if self._in_kernel else 0)
        self.redirect = Redirect(sizes, program)
        self._open.callback(self.redirect.close)
        self.tables = SharedTables(self._arms, hash_key, sizes, self.redirect.allocate, wait_for_programs)
        self._most = [(mtu(arm.name) or CHUNK) + ethernet.LENGTH for arm in arms]
        """Bytes of a frame without a tag that each arm's interface takes."""
        self._workers: list[Worker] = []
        self._sockets: list[XskSocket] = []
        self._senders: list[socket.socket] = []
        """By arm: for what Python makes, which is rare and has no place in the UMEM."""
        self._umem: Umem | None = None
        self._woken, self._running = -1, False
        self._seen = 0
        self._current: tuple[Worker, Missed] | None = None
        self._final: dict[str, Any] | None = None

    def open(self) -> Self:
        """Bind and attach. The threads start with the first poll(), and have the capabilities of its caller.

        Raises `OSError` with the interface's name and the operation.
        """
        try:
            self._open_all()
        except BaseException:
            self.close()
            raise
        return self

    def _open_all(self) -> None:
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open.callback(os.close, self._woken)
        umem = self._umem = self._open.enter_context(Umem(FRAMES * self.queues, CHUNK))
        for queue in range(self.queues):
            sockets = [self._open_socket(umem, arm.name, queue) for arm in self._arms]
            frames = umem.pool.pop(FRAMES)
            view, sample = self.tables.view(queue), self._sample > 0
            worker = Worker(view, umem, sockets, frames, self._woken, sample)
            worker.take_at_most(self._most)
            self._open.callback(worker.close)
            self._workers.append(worker)
            for number in range(len(sockets)):
                worker.burst(number)  # fills the fill ring: frames may come before the first poll()
            for number, opened in enumerate(sockets):
                self.redirect.redirect_to(number, opened)
        self._senders += [self._open.enter_context(_sender(arm.name)) for arm in self._arms]
        self.zero_copy = self._sockets[0].zero_copy
        self._open.callback(self._stop)
        self.tables.interfaces_are([socket.if_nametoindex(arm.name) for arm in self._arms])
        for arm in self._arms:
            self.redirect.attach(arm.name)

    def _open_socket(self, umem: Umem, interface: str, queue: int) -> XskSocket:
        size = FRAMES // (2 * len(self._arms))
        opened = self._open.enter_context(XskSocket(umem, interface, queue, rx=size, tx=TX, fill=0))
        self._sockets.append(opened)
        return opened

    def _stop(self) -> None:
        try:
            self.redirect.detach()
        finally:
            for worker in self._workers:
                worker.stop()
        self._final = self.statistics()

    def poll(self, timeout: float) -> Iterator[Received]:
        """Frames that the queues left to Python; waits up to `timeout` seconds for the first."""
        assert self._umem is not None, "open() comes first"
        if not self._running:
            self._running = True
            for queue, worker in enumerate(self._workers):
                worker.start(f"queue-{queue}", self)
        for queue, worker in enumerate(self._workers):
            if worker.error:
                number, arm = worker.error
                name = self._arms[arm].name
                raise OSError(ENODEV, f"AF_XDP socket of {name}, queue {queue}: {os.strerror(number)}", name)
        quiet = [worker.will_wait() for worker in self._workers]  # each has to be told
        if all(quiet):
            if not readable(self._woken, timeout=timeout):
                return
            os.eventfd_read(self._woken)
        for worker in self._workers:
            yield from self._missed_by(worker, self._umem)

    def _missed_by(self, worker: Worker, umem: Umem) -> Iterator[Received]:
        """Each frame goes back: as `send` said, or, also when the caller gives up, to be forgotten."""
        with worker.misses() as taken:
            for missed in taken:
                frame = umem.view(missed.address, missed.length)
                self._current = worker, missed
                self._seen += 1
                if self._sample and self._seen >= SAMPLED:
                    self._sampled(0)
                try:
                    yield Received(frame, missed.arm, 0, frame)
                finally:
                    if self._current:
                        worker.give_back(missed, None)
                        self._current = None

    def send(self, received: Received, arm: int, made: bytes | None = None) -> bool:
        """Give the frame back to its queue, to be sent after this burst; False: it is too long for that arm.

        One that the queue cannot send then is counted as return_dropped. A frame of our own leaves at once.
        """
        if made is None:
            assert self._current is not None, "the frame that poll() has just handed out"
            worker, missed = self._current
            tag = ethernet.length(received.frame) - ethernet.LENGTH
            if missed.length > self._most[arm] + tag:
                return False
            self._current = None
            worker.give_back(missed, arm)
        else:
            try:
                self._senders[arm].send(made)
            except OSError:  # as in the raw engine: no room, down, or too long
                return False
        if self._sample:
            self._sampled(self._sample - 1)
        return True

    def forward_in_kernel(self, allowed: bool) -> None:
        """Whether the kernel path may send frames, if the program has one. At first not. From any thread."""
        with self._deciding:
            self._allowed = allowed and self._in_kernel
            self.tables.kernel_forwards(self._allowed and not self._sample)

    def _sampled(self, left: int) -> None:
        """So many more are wanted; at 0 the queues decide what they can."""
        with self._deciding:
            self._sample = left
            self.tables.kernel_forwards(self._allowed and not left)
        if not left:
            for worker in self._workers:
                worker.stop_sampling()

    def look(self) -> None:
        """See whether the interfaces still are as they were at the start.

        A new MTU is taken over. Raises `OSError` for one above the chunk, and for another number of queues:
        frames on a new one would reach nobody.
        """
        for number, arm in enumerate(self._arms):
            if size := mtu(arm.name):
                require_mtu(arm.name, size)
                self._most[number] = size + ethernet.LENGTH
        for worker in self._workers:
            worker.take_at_most(self._most)
        if common_queues([arm.name for arm in self._arms]) != self.queues:
            raise OSError(EINVAL, f"the interfaces had {self.queues} RX queues each when this began")

    def close(self) -> None:
        """Detach, stop the threads, close the sockets. The tables stay. May be called twice."""
        self._open.close()

    def statistics(self) -> dict[str, Any]:
        """`receive_lost`: dropped by the kernel because no frame or no place was free. Then the sums of the
        queues' own counters, see native/src/burst.h; `queues`: the same for each; `miss_reasons`: see
        docs/verdicts.md. With the kernel path `kernel_forwarded`: frames that it sent, which no queue saw.
        """
        if self._final is not None:
            return self._final
        queues = [self._count(queue, worker) for queue, worker in enumerate(self._workers)]
        sums = {name: sum(each[name] for each in queues) for name in ("receive_lost", *burst.COUNTERS)}
        kernel = {"kernel_forwarded": self.tables.by_kernel()} if self._in_kernel else {}
        return {**sums, **kernel, "queues": queues, "miss_reasons": self.tables.misses()}

    def _count(self, queue: int, worker: Worker) -> dict[str, int]:
        kernel = [each.statistics() for each in self._sockets if each.queue == queue]
        # rx_dropped has what found the fill ring empty too.
        lost = sum(each.rx_dropped + each.rx_ring_full for each in kernel)
        return {"receive_lost": lost, **worker.counters()}

    def check_frames(self) -> list[Accounting]:
        """Where the frames of each queue are: its lists, the rings' counters and the byte of each frame.

        Only while nothing moves. Raises `FrameError` when they disagree: a leak, or a frame twice.
        """
        found = []
        for queue, worker in enumerate(self._workers):
            sockets = [each for each in self._sockets if each.queue == queue]
            each = worker.accounting()
            if sum(each) != FRAMES or any(socket.cdata.stray for socket in sockets):
                raise FrameError(f"queue {queue}: {sum(each)} of {FRAMES} frames are accounted for ({each})")
            found.append(each)
        return found


def _sender(interface: str) -> socket.socket:
    """A packet socket that receives nothing. Raises `OSError` that names the interface."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        sock.bind((interface, 0))
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"opening a packet socket: {error.strerror}", interface) from error
    return sock


def common_queues(interfaces: Sequence[str]) -> int:
    """How many RX queues each of the interfaces has.

    Raises `OSError` (EINVAL) where one has another number, or more than there are sockets for: a queue's
    thread receives on its queue of one interface and sends on that of the other.
    """
    found = {name: rx_queues(name) or 1 for name in interfaces}
    most = min(QUEUES, *found.values())
    if any(count != most for count in found.values()):
        said = " and ".join(f"{count} on {name}" for name, count in found.items())
        raise OSError(
            EINVAL,
            f"RX queues: {said}; AF_XDP needs the same number on each, {QUEUES} at most:"
            f" `ethtool -L` sets them (`combined {most}`, or `rx {most} tx {most}` on a veth)",
        )
    return most


def require_mtu(interface: str, mtu: int) -> None:
    """Raises `OSError` (ERANGE) for frames that do not fit into a chunk."""
    if mtu + ETHERNET > MOST_BYTES:
        most = MOST_BYTES - ETHERNET
        raise OSError(ERANGE, f"an MTU of {mtu}; AF_XDP takes up to {most} here", interface)
