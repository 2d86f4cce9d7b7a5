"""Capabilities: after the host has been inspected, keep what running needs and give the rest away.

Linux has no call for it that Python's standard library offers; see
capabilities(7) and prctl(2). Capabilities belong to a thread: drop them
before others are started, which then inherit what is left.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from struct import pack
from typing import Final

CAP_SETPCAP: Final = 8
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
CAP_IPC_LOCK: Final = 14
CAP_PERFMON: Final = 38
CAP_BPF: Final = 39

TO_OPEN: Final = (CAP_SETPCAP, CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON, CAP_IPC_LOCK)
"""For a dataplane: sockets, BPF programs and maps, memory that both sides have mapped; CAP_SETPCAP to drop
them from the bounding set afterwards. Without CAP_PERFMON the verifier takes only simpler programs.
"""
TO_RUN: Final = (CAP_NET_ADMIN, CAP_NET_RAW)
"""For all that comes after: neighbours, nft, ARP."""

_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x2008_0522
_LAST_POSSIBLE: Final = 64


def keep_only(capabilities: Iterable[int]) -> None:
    """Drop every other capability of this thread and of programs that it starts, for good.

    What is kept is what the thread has of `capabilities`; programs that it
    starts get the same, whoever the user is. Raises `OSError` if the kernel
    refuses to drop.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = sum(1 << capability for capability in capabilities)
    for capability in range(_LAST_POSSIBLE):
        # EINVAL: this kernel has no such capability. EPERM: no CAP_SETPCAP, so the rest must do.
        if not wanted >> capability & 1:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")

    header = pack("=Ii", _VERSION_3, 0)
    kept = wanted & permitted()
    low, high = kept & 0xFFFF_FFFF, kept >> 32
    # struct __user_cap_data_struct[2]: effective, permitted, inheritable; lower half, upper half.
    _check(libc.capset(header, pack("=6I", low, low, low, high, high, high)), "capset")
    for capability in range(_LAST_POSSIBLE):
        # Only root's programs get them without this. EPERM: the user's securebits forbid it.
        if kept >> capability & 1:
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def permitted() -> int:
    """The bits of the capabilities that this thread may use."""
    with open("/proc/thread-self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("CapPrm:"))
    return int(line.split()[1], 16)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
