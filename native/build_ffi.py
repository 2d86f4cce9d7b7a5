"""Describe the extension modules `l4raw._native` and `l4raw._xdp` to cffi (API mode).

Lives here: which headers cffi reads, which C files are compiled, which
libraries are linked. Must not live here: a declaration of its own; the
headers are the only text, read through `cc -E`. setup.py decides when this
runs and what happens when it cannot.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cffi import FFI

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gen_abi import HEADER, preprocess
from missing import Missing

NATIVE = Path(__file__).resolve().parent
# No vectors of what was just written in halves: the processor waits for its own stores (docs/performance.md).
COMPILE_ARGS = ("-std=c11", "-O2", "-fno-strict-aliasing", "-fno-tree-slp-vectorize")


@dataclass(frozen=True)
class Module:
    """One extension module. Paths of sources and folders are relative to the project's root."""

    name: str
    headers: tuple[Path, ...]
    sources: tuple[str, ...]
    """Compiled beside the file that cffi writes."""
    include_dirs: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    """As pkg-config names them; linked dynamically."""
    debian: str = ""
    """The packages that have those."""


MODULES = (
    Module(
        "l4raw._native",
        headers=(HEADER, NATIVE / "src" / "abi.h", NATIVE / "src" / "helper.h"),
        sources=("native/src/abi.c", "native/src/helper.c", "native/src/shared.c"),
        include_dirs=("native/include", "native/src"),
    ),
    Module(
        "l4raw._xdp",
        headers=(NATIVE / "xdp" / "xsk.h", NATIVE / "xdp" / "program.h"),
        sources=("native/xdp/xsk.c", "native/xdp/program.c"),
        include_dirs=("native/xdp",),
        libraries=("libxdp", "libbpf"),
        debian="libxdp-dev libbpf-dev",
    ),
    # The helper and the sockets' rings, compiled together into one loop.
    Module(
        "l4raw._burst",
        headers=(HEADER, NATIVE / "src" / "abi.h", NATIVE / "xdp" / "xsk.h", NATIVE / "src" / "burst.h"),
        sources=("native/src/abi.c", "native/src/burst.c", "native/src/helper.c", "native/xdp/xsk.c"),
        include_dirs=("native/include", "native/src", "native/xdp"),
        libraries=("libxdp", "libbpf"),
        debian="libxdp-dev libbpf-dev",
    ),
)


def write_source(module: Module, target: Path) -> None:
    """Write the C source of a module, which setup.py compiles together with its sources.

    Raises FileNotFoundError without a compiler, RuntimeError when it refuses.
    """
    includes = "".join(f'#include "{header}"\n' for header in module.headers)
    ffi = FFI()
    ffi.cdef(preprocess(includes))
    ffi.set_source(module.name, "".join(f'#include "{header.name}"\n' for header in module.headers))
    target.parent.mkdir(parents=True, exist_ok=True)
    ffi.emit_c_code(str(target))


def link_flags(module: Module, what: str) -> list[str]:
    """Return what pkg-config says for "cflags" or "libs". Raises Missing."""
    if not module.libraries:
        return []
    command = ["pkg-config", f"--{what}", *module.libraries]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Missing("pkg-config was not found (Debian, Ubuntu: apt install pkg-config)") from None
    if done.returncode != 0:
        names = " or ".join(module.libraries)
        raise Missing(f"the headers of {names} are missing (Debian, Ubuntu: apt install {module.debian})")
    return shlex.split(done.stdout)
