"""What a process may not do is said by name: one capability at a time, and locked memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from errno import ENOBUFS, EPERM
from pathlib import Path

import pytest
from l4raw.netns import Host

from tests.integration.xdp_lab import cable

pytestmark = [pytest.mark.root, pytest.mark.xdp]

ROOT = Path(__file__).resolve().parents[2]

TRY = """
import sys
from l4raw.xdp import PassToSocket, Umem, XdpError, XskSocket
try:
    with Umem(int(sys.argv[1])) as umem, XskSocket(umem, "eth0") as xsk, PassToSocket() as program:
        program.sockets.update(0, xsk)
        with program.attach("eth0"):
            print("works")
except XdpError as error:
    print(error.errno, error)
"""


@pytest.fixture(scope="module")
def right() -> Iterator[Host]:
    with cable() as (_, end):
        yield end


def attempt(end: Host, *without: str, frames: int = 64, memlock: int | None = None) -> str:
    """What a root process without these capabilities says; `memlock` in bytes."""
    argv = ["prlimit", f"--memlock={memlock}:{memlock}"] if memlock else []
    if without:
        names = ",".join(f"-{name}" for name in without)
        argv += ["setpriv", f"--bounding-set={names}", f"--inh-caps={names}"]
    argv += ["env", f"PYTHONPATH={ROOT}", sys.executable, "-P", "-c", TRY, str(frames)]
    return end.run(argv).stdout.strip()


def test_with_all_of_them_it_works(right: Host) -> None:
    assert attempt(right) == "works"


# For bpf(2), CAP_SYS_ADMIN stands for both of the others.
@pytest.mark.parametrize(
    ("without", "operation", "missing"),
    [
        (["net_raw"], "registering a UMEM", "CAP_NET_RAW is missing"),
        (["bpf", "sys_admin"], "loading a BPF program", "CAP_BPF is missing"),
        (["net_admin", "sys_admin"], "loading a BPF program", "CAP_NET_ADMIN is missing"),
        (["bpf", "sys_admin", "net_admin"], "loading a BPF program", "CAP_BPF and CAP_NET_ADMIN are missing"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_a_missing_capability_is_named(right: Host, without: list[str], operation: str, missing: str) -> None:
    said = attempt(right, *without)
    assert said.startswith(f"{EPERM} {operation}: Operation not permitted: {missing}; ")


def test_locked_memory(right: Host) -> None:
    said = attempt(right, "ipc_lock", frames=1024, memlock=1 << 20)
    assert said.startswith(f"{ENOBUFS} registering a UMEM: ")
    assert f"the UMEM has {1024 * 2048} bytes, this user may lock {1 << 20} (RLIMIT_MEMLOCK)" in said
    assert "`ulimit -l 2048`" in said
    assert attempt(right, "ipc_lock", frames=128, memlock=1 << 20) == "works"
    assert attempt(right, frames=1024, memlock=1 << 20) == "works"  # CAP_IPC_LOCK: no limit
