"""The compiled module `l4raw._xdp`, if there is one.

Lives here: its only import, and one sentence about it and about the BPF
program that comes with it. Must not live here: anything that works without.

`ffi` and `lib` are cffi's, or None; `require()` returns them or raises.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from l4raw.xdp.errors import XdpError

_PACKAGE = Path(__file__).resolve().parent.parent
_REASON_FILE = _PACKAGE / "xdp_not_built.txt"
_BPF_REASON_FILE = _PACKAGE / "bpf_not_built.txt"
"""Written by setup.py when it could not compile."""
BPF_PROGRAMS = ("pass_to_socket", "redirect", "forward", "egress")
"""What `up` loads; the others belong to the benchmarks."""


def _load() -> tuple[Any, Any, str]:
    """Return cffi's `ffi` and `lib` (or None and None), and the sentence for `status`."""
    try:
        from l4raw._xdp import ffi, lib
    except ImportError as error:
        return None, None, f"not built: {_why_not(error)}"
    try:
        # cffi compares a struct's layout with the compiler's when it is first used, not before.
        for name in filter(_is_ours, ffi.list_types()[1]):
            ffi.sizeof(f"struct {name}")
    except ffi.error as error:
        return None, None, f"not usable: {error}; install l4raw again"
    return ffi, lib, f"built, libbpf {lib.libbpf_major_version()}.{lib.libbpf_minor_version()}"


def _is_ours(name: str) -> bool:
    """Whether a struct is not one that only libxdp and libbpf know."""
    return name.startswith("lx_")


def _why_not(error: ImportError) -> str:
    """Return what setup.py recorded, or what the import said."""
    if reason := _recorded(_REASON_FILE):
        return reason
    if isinstance(error, ModuleNotFoundError):
        return f"no module {error.name}; `make build` or `pip install .` builds it"
    return str(error)


def _recorded(file: Path) -> str:
    """Return what setup.py wrote into a file, or ""."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


ffi, lib, _STATUS = _load()


def available() -> bool:
    """Whether the AF_XDP part was compiled and can be used. Needs no privilege and asks no kernel."""
    return lib is not None


def status() -> str:
    """One sentence for a person: "built, libbpf 1.1", or "not built: " and the reason."""
    return _STATUS


def bpf_object(name: str) -> Path:
    """Where the BPF object `name` is. Raises `XdpError` (ENOENT) with the reason when it was not built."""
    path = _PACKAGE / "xdp" / f"{name}.bpf.o"
    if not path.exists():
        reason = _recorded(_BPF_REASON_FILE) or "it is not in this installation"
        raise XdpError(errno.ENOENT, f"opening the BPF program {name}", cause=reason, next_step=_AGAIN)
    return path


def bpf_status() -> str:
    """One sentence about the BPF programs that come with this package."""
    try:
        for name in BPF_PROGRAMS:
            bpf_object(name)
    except XdpError as error:
        return f"not built: {error.cause}"
    return "built"


def require() -> tuple[Any, Any]:
    """Return `ffi` and `lib`. Raises `XdpError` (ENOSYS) with the reason when there is no compiled module."""
    if lib is None:
        raise XdpError(errno.ENOSYS, "loading l4raw._xdp", cause=_STATUS, next_step=_AGAIN)
    return ffi, lib


_AGAIN = "install what is missing, then l4raw again; `l4raw version` tells"

if __name__ == "__main__":
    print(f"AF_XDP part: {status()}")
