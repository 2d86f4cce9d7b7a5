"""Error texts: the operation, the place, the cause with numbers, the next step."""

from __future__ import annotations

import re
from errno import (
    EACCES,
    EBUSY,
    EEXIST,
    EINVAL,
    EIO,
    ENOBUFS,
    ENODEV,
    ENOENT,
    ENOSPC,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
)  # fmt: skip

import pytest

from l4raw.xdp.errors import Facts, Operation, XdpError, explain

FACTS = Facts(
    interface="veth7",
    queue=3,
    capabilities=frozenset(),
    umem_bytes=4 << 20,
    memlock=1 << 20,
    mtu=1500,
    largest_mtu=3506,
    rx_queues=2,
    attached="program 17 'filter'",
    said="R1 invalid mem access",
)


@pytest.mark.parametrize(
    ("operation", "number", "cause", "step"),
    [
        (Operation.REGISTER, ENOBUFS, "4194304 bytes, this user may lock 1048576", "`ulimit -l 4096`"),
        (Operation.BIND, EBUSY, "another AF_XDP socket has this queue", "timeout="),
        (Operation.BIND, EOPNOTSUPP, "no zero-copy mode", "copy=True"),
        (Operation.BIND, EINVAL, "RX queues: 2, numbered from 0", "ethtool -l"),
        (Operation.BIND, ENODEV, "no such interface in this network namespace", "ip link"),
        (Operation.ATTACH, ERANGE, "peer is above 3506, .*veth7 itself has MTU 1500", "mtu 3506"),
        (Operation.ATTACH, ENOSPC, "veth7 has 2 RX queues and its veth peer more TX", "numrxqueues"),
        (Operation.ATTACH, EBUSY, "program 17 'filter' is attached already and was left", "bpftool net"),
        (Operation.ATTACH, EEXIST, "program 17 'filter' is attached already", "another interface"),
        (Operation.ATTACH, EOPNOTSUPP, "driver cannot", "mode='generic'"),
        (Operation.DISPATCH, EBUSY, "program 17 'filter' is attached already", "another interface"),
        (Operation.DISPATCH, EOPNOTSUPP, "dispatcher cannot be loaded", r"attach\(\)"),
        (Operation.DISPATCH, ENOENT, "BPF file system, and there is none", r"attach\(\)"),
        (Operation.LOAD, EACCES, "CAP_BPF and CAP_NET_ADMIN and CAP_PERFMON are missing", "as root"),
        (Operation.LOAD, EINVAL, "verifier refused it: R1 invalid mem access\n", ""),
        (Operation.SEND, EIO, "R1 invalid", ""),
    ],
)
def test_cause_and_next_step(operation: Operation, number: int, cause: str, step: str) -> None:
    found = explain(number, operation, FACTS)
    assert re.search(cause, found[0])
    assert re.search(step, found[1])


@pytest.mark.parametrize(
    ("operation", "has", "names"),
    [
        (Operation.REGISTER, set(), "CAP_NET_RAW is missing"),
        (Operation.LOAD, {"CAP_NET_ADMIN", "CAP_PERFMON"}, "CAP_BPF is missing"),
        (Operation.LOAD, {"CAP_BPF", "CAP_PERFMON"}, "CAP_NET_ADMIN is missing"),
        (Operation.LOAD, {"CAP_BPF", "CAP_NET_ADMIN"}, "CAP_PERFMON is missing"),
        (Operation.ATTACH, set(), "CAP_BPF and CAP_NET_ADMIN are missing"),
        (Operation.ATTACH, {"CAP_BPF", "CAP_NET_ADMIN"}, "the kernel refuses although CAP_BPF and"),
    ],
)
def test_a_refusal_names_the_missing_capability(operation: Operation, has: set[str], names: str) -> None:
    cause, step = explain(EPERM, operation, Facts(capabilities=frozenset(has)))
    assert cause.startswith(names)
    assert step


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("number", [EPERM, EBUSY, EINVAL, ENOBUFS, ENODEV, ENOSPC, ERANGE, EOPNOTSUPP])
def test_nothing_known_is_no_failure(operation: Operation, number: int) -> None:
    """A host that does not tell its numbers must not turn one error into another."""
    cause, step = explain(number, operation, Facts())
    assert "None" not in cause + step or "on None" not in cause


def test_text_has_operation_place_cause_and_step() -> None:
    error = XdpError(
        EBUSY, "binding", interface="eth0", queue=2, cause="another has it", next_step="close the other"
    )
    assert str(error) == "binding on eth0, queue 2: Device or resource busy: another has it; close the other"
    assert isinstance(error, OSError)
    assert (error.errno, error.interface, error.queue) == (EBUSY, "eth0", 2)
    assert str(XdpError(EBUSY, "binding")) == "binding: Device or resource busy"


def test_queue_zero_is_named() -> None:
    assert "eth0, queue 0" in str(XdpError(EBUSY, "binding", interface="eth0", queue=0))
