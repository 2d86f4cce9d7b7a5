"""Describe the extension module `l4raw._native` to cffi (API mode).

Lives here: which headers cffi reads and which C files are compiled. Must not
live here: a declaration of its own; the headers are the only text, read
through `cc -E`. setup.py decides when this runs and what happens when it
cannot.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cffi import FFI

sys.path.insert(0, str(Path(__file__).resolve().parent))
from gen_abi import HEADER, preprocess

MODULE = "l4raw._native"
HEADERS = (HEADER, HEADER.parent.parent / "src" / "abi.h")
SOURCES = ("native/src/abi.c",)
"""Compiled beside the file that cffi writes; relative to the project's root, as setuptools wants."""
INCLUDE_DIRS = ("native/include", "native/src")
COMPILE_ARGS = ("-std=c11", "-O2", "-fno-strict-aliasing")


def make_ffi() -> FFI:
    """Return the builder. Raises FileNotFoundError without a compiler, RuntimeError when it refuses."""
    includes = "".join(f'#include "{header}"\n' for header in HEADERS)
    ffi = FFI()
    ffi.cdef(preprocess(includes))
    ffi.set_source(MODULE, "".join(f'#include "{header.name}"\n' for header in HEADERS))
    return ffi


def write_source(target: Path) -> None:
    """Write the C source of the module, which setup.py compiles together with SOURCES."""
    target.parent.mkdir(parents=True, exist_ok=True)
    make_ffi().emit_c_code(str(target))
