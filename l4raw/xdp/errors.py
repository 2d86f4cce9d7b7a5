"""What went wrong, why, and what to do: the errors of this package.

Lives here: the two exceptions, and the table from an operation and an errno
to a cause and a next step. Must not live here: asking the host for the numbers
in them (host.py); so all of it can be tested without one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from errno import (
    EACCES,
    EBUSY,
    EEXIST,
    EINVAL,
    ENOBUFS,
    ENODEV,
    ENOENT,
    ENOSPC,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
)
from typing import Final


class FrameError(ValueError):
    """A frame is not where this call needs it: sent, released or used twice. A mistake of the caller."""


class XdpError(OSError):
    """A system call failed. `errno` as the kernel gave it; the text has cause and next step.

    Attributes: `operation`, `interface` and `queue` (None where there is
    none), `cause`, `next_step` (empty where nothing is known).
    """

    def __init__(
        self,
        number: int,
        operation: str,
        *,
        interface: str | None = None,
        queue: int | None = None,
        cause: str = "",
        next_step: str = "",
    ) -> None:
        super().__init__(number, os.strerror(number))
        self.operation = operation
        self.interface = interface
        self.queue = queue
        self.cause = cause
        self.next_step = next_step

    def __str__(self) -> str:
        where = f" on {self.interface}" if self.interface else ""
        where += f", queue {self.queue}" if self.queue is not None else ""
        text = f"{self.operation}{where}: {self.strerror}"
        text += f": {self.cause}" if self.cause else ""
        return text + (f"; {self.next_step}" if self.next_step else "")


class Operation(StrEnum):
    """What was tried."""

    REGISTER = "registering a UMEM"
    BIND = "binding an AF_XDP socket"
    SEND = "sending"
    WAIT = "waiting"
    OPEN = "opening a BPF object"
    LOAD = "loading a BPF program"
    ATTACH = "attaching an XDP program"
    REPLACE = "replacing an XDP program"
    DISPATCH = "attaching an XDP program with libxdp's dispatcher"
    DETACH = "detaching an XDP program"
    UPDATE = "updating a BPF map"
    READ = "reading a BPF map"
    MAP = "mapping a BPF map"
    RUN = "running a BPF program"


NEEDS: Final[dict[Operation, tuple[str, ...]]] = {
    Operation.REGISTER: ("CAP_NET_RAW",),
    Operation.BIND: ("CAP_NET_RAW",),
    # CAP_PERFMON: without it the verifier refuses what a program does with pointers in its maps.
    Operation.LOAD: ("CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"),
    Operation.ATTACH: ("CAP_BPF", "CAP_NET_ADMIN"),
    Operation.DISPATCH: ("CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
    Operation.UPDATE: ("CAP_BPF", "CAP_NET_ADMIN"),
    Operation.RUN: ("CAP_BPF", "CAP_NET_ADMIN"),
}
"""capabilities(7) that the kernel asks for."""


@dataclass(frozen=True)
class Facts:
    """Numbers for the texts; None where the host did not tell."""

    interface: str | None = None
    queue: int | None = None
    capabilities: frozenset[str] | None = None
    """In effect."""
    umem_bytes: int = 0
    memlock: int | None = None
    """RLIMIT_MEMLOCK in bytes."""
    mtu: int | None = None
    largest_mtu: int | None = None
    """That a peer may have for native XDP on a veth; None where it is no limit."""
    rx_queues: int | None = None
    attached: str = ""
    """The program that is on the interface now, in words."""
    said: str = ""
    """By libbpf, libxdp or the verifier."""


Advice = tuple[str, str]
"""Cause and next step."""


def explain(number: int, operation: Operation, facts: Facts) -> Advice:
    """Return the cause and the next step for a failed operation; empty texts where nothing is known."""
    if number in (EPERM, EACCES):
        if operation is Operation.LOAD and number == EACCES and not _missing(operation, facts):
            return _refused(facts)
        return _not_permitted(operation, facts)
    known = _TABLE.get((operation, number))
    if known is None:
        known = _TABLE.get((None, number))
    if known is None:
        return facts.said.strip(), ""
    return known(facts)


def _not_permitted(operation: Operation, facts: Facts) -> Advice:
    needs = NEEDS.get(operation, ())
    missing = _missing(operation, facts)
    if missing:
        names = " and ".join(missing)
        verb = "is" if len(missing) == 1 else "are"
        return f"{names} {verb} missing", f"run as root, or give this process {names}"
    return (
        f"the kernel refuses although {' and '.join(needs) or 'every capability'} may be there",
        "a user namespace, a seccomp filter or kernel lockdown may forbid it: try as root of the host",
    )


def _missing(operation: Operation, facts: Facts) -> list[str]:
    has = facts.capabilities
    return [name for name in NEEDS.get(operation, ()) if has is not None and name not in has]


def _memlock(facts: Facts) -> Advice:
    if facts.memlock is None:
        return "the kernel has no room for the UMEM", "make it smaller"
    need = -(-facts.umem_bytes // 1024)
    return (
        f"the UMEM has {facts.umem_bytes} bytes, this user may lock {facts.memlock} (RLIMIT_MEMLOCK)"
        " and CAP_IPC_LOCK is missing",
        f"`ulimit -l {need}` or more, fewer or smaller frames, or give this process CAP_IPC_LOCK",
    )


def _queue_owned(facts: Facts) -> Advice:
    return (
        "another AF_XDP socket has this queue, or had it until just now",
        "close the other one, take another queue, or wait longer (timeout=)",
    )


def _no_zero_copy(facts: Facts) -> Advice:
    return "the driver has no zero-copy mode for this queue", "leave `copy` out, or copy=True"


def _no_such_queue(facts: Facts) -> Advice:
    if facts.rx_queues is not None and (facts.queue or 0) >= facts.rx_queues:
        return f"RX queues: {facts.rx_queues}, numbered from 0", "`ethtool -l` shows them"
    return (
        "the queue does not exist, or these options do not fit the first socket of this UMEM",
        "`ethtool -l` shows the queues; `copy` is decided by the first socket",
    )


def _no_interface(facts: Facts) -> Advice:
    return "there is no such interface in this network namespace", "`ip link` lists them"


def _peer_mtu(facts: Facts) -> Advice:
    mtu = f"; {facts.interface} itself has MTU {facts.mtu}" if facts.mtu is not None else ""
    if facts.largest_mtu is None:
        return f"the MTU is too large for native XDP{mtu}", "make the MTU smaller"
    return (
        f"the MTU of the veth's peer is above {facts.largest_mtu}, so that a frame would not fit a page{mtu}",
        f"at the peer: `ip link set DEVICE mtu {facts.largest_mtu}` or less; or mode='generic'",
    )


def _peer_queues(facts: Facts) -> Advice:
    own = f"{facts.rx_queues} RX queues" if facts.rx_queues is not None else "fewer RX queues"
    return (
        f"{facts.interface} has {own} and its veth peer more TX queues",
        "`ethtool -L` at one end, or make the pair with numrxqueues and numtxqueues equal on both ends",
    )


def _foreign(facts: Facts) -> Advice:
    there = facts.attached or "another XDP program"
    return (
        f"{there} is attached already and was left as it is",
        "remove it where it comes from (`ip link show` and `bpftool net` name it), or use another interface",
    )


def _no_native(facts: Facts) -> Advice:
    return "the driver cannot do this with XDP", "mode='generic' works on every interface, but slowly"


def _no_dispatcher(facts: Facts) -> Advice:
    return (
        "libxdp's dispatcher cannot be loaded on this host, and alone the program would exclude others",
        "use attach()",
    )


def _no_bpffs(facts: Facts) -> Advice:
    return (
        f"the dispatcher keeps its programs in a BPF file system, and there is none at {facts.said}",
        "mount one (`ip netns exec` hides it, `nsenter --net=` does not), or use attach()",
    )


def _refused(facts: Facts) -> Advice:
    last = facts.said.strip().rpartition("\n")[2]
    return f"the verifier refused it: {last}\n{facts.said.strip()}", ""


_TABLE: Final[dict[tuple[Operation | None, int], Callable[[Facts], Advice]]] = {
    (None, ENODEV): _no_interface,
    (Operation.REGISTER, ENOBUFS): _memlock,
    (Operation.BIND, EBUSY): _queue_owned,
    (Operation.BIND, EOPNOTSUPP): _no_zero_copy,
    (Operation.BIND, EINVAL): _no_such_queue,
    (Operation.LOAD, EINVAL): _refused,
    (Operation.ATTACH, ERANGE): _peer_mtu,
    (Operation.ATTACH, ENOSPC): _peer_queues,
    (Operation.ATTACH, EBUSY): _foreign,
    (Operation.ATTACH, EEXIST): _foreign,
    (Operation.ATTACH, EOPNOTSUPP): _no_native,
    (Operation.DISPATCH, ERANGE): _peer_mtu,
    (Operation.DISPATCH, ENOSPC): _peer_queues,
    (Operation.DISPATCH, EBUSY): _foreign,
    (Operation.DISPATCH, EEXIST): _foreign,
    (Operation.DISPATCH, EOPNOTSUPP): _no_dispatcher,
    (Operation.DISPATCH, ENOENT): _no_bpffs,
}
