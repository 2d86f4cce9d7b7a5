"""The compiled module, if there is one.

Lives here: the only import of `l4raw._native` in the project, the check that
a module was compiled from the same header as l4raw/wire/abi.py, and one
sentence about it. Must not live here: a decision that differs with and without it;
everything that both can do behaves the same.

`ffi` and `lib` are cffi's, or None. Ask `available()` before using them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from l4raw.wire import abi

_REASON_FILE = Path(__file__).resolve().parent.parent / "native_not_built.txt"
"""Written by setup.py when it could not compile."""


def load(module: str, reason: Path) -> tuple[Any, Any, str]:
    """Import a compiled module: cffi's `ffi` and `lib` (or None and None), and a sentence about it.

    `reason` is the file in which setup.py says why it is not there. A module of another ABI is not used.
    """
    try:
        compiled = import_module(module)
    except ImportError as error:
        return None, None, f"not built: {_why_not(error, reason)}"
    ffi, lib = compiled.ffi, compiled.lib
    again = "install l4raw again"
    if (version := lib.l4_abi_version()) != abi.ABI_VERSION:
        return None, None, f"not usable: it has ABI {version}, l4raw has ABI {abi.ABI_VERSION}; {again}"
    try:
        # cffi compares a struct's layout with the compiler's when it is first used, not before.
        for name in ffi.list_types()[1]:
            if name.startswith("l4_"):  # others are only named, and are libxdp's
                ffi.sizeof(f"struct {name}")
    except ffi.error as error:
        return None, None, f"not usable: {error}; {again}"
    return ffi, lib, f"built, ABI {version}"


def _why_not(error: ImportError, reason: Path) -> str:
    """Return what setup.py recorded, or what the import said."""
    try:
        return reason.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if isinstance(error, ModuleNotFoundError):
            return f"no module {error.name}; `make build` or `pip install .` builds it"
        return str(error)


def others() -> dict[str, str]:
    """A sentence about each other compiled part, by its name: what `l4raw version` prints.

    They are not imported with this module, so that the raw engine loads none of them.
    """
    from l4raw.engine import burst
    from l4raw.xdp import native as xdp

    return {"xdp": xdp.status(), "bpf": xdp.bpf_status(), "af_xdp": burst.status()}


ffi, lib, _STATUS = load("l4raw._native", _REASON_FILE)


def available() -> bool:
    """Whether `ffi` and `lib` can be used."""
    return lib is not None


def status() -> str:
    """One sentence for a person: "built, ABI 3", or "not built: " and the reason."""
    return _STATUS


if __name__ == "__main__":
    print(f"native part: {status()}")
    for name, sentence in others().items():
        print(f"{name}: {sentence}")
