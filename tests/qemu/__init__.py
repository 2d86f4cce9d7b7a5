"""Virtual machines with a Debian kernel, for tests that need what the running kernel lacks.

Lives here: where the kernels come from (kernels.py), what a guest starts with
(initramfs.py, init.sh, agent.sh), the guest itself (guest.py). Must not live
here: what a test expects of a guest.

A guest has its own kernel, and for the rest looks like this machine: its root
is this one's, shared read-only by 9p, and what it writes stays in its memory.
The processor is emulated (`-accel tcg`): slow, but it needs no /dev/kvm.
"""

from __future__ import annotations

from .guest import Cable, Guest, GuestError
from .kernels import DEBIAN, Kernel, KernelError, kernel

__all__ = ["DEBIAN", "Cable", "Guest", "GuestError", "Kernel", "KernelError", "kernel"]
