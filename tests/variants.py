"""Other builds of the helper: its text changed, or compiled with sanitizers.

The product has no switch for this. A copy of native/ is changed and compiled
beside it.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NATIVE = ROOT / "native"
sys.path.insert(0, str(NATIVE))

import build_ffi  # noqa: E402

HELPER = next(module for module in build_ffi.MODULES if module.name == "l4raw._native")
COMPILE_ARGS, INCLUDE_DIRS = build_ffi.COMPILE_ARGS, HELPER.include_dirs

SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g")


class Patch(NamedTuple):
    """One place of one file, which must be there once."""

    file: str
    """In native/."""
    old: str
    new: str


def compiler() -> list[str]:
    """As the one who runs the tests chose it."""
    return shlex.split(os.environ.get("CC") or "cc")


@functools.cache
def _border() -> Path:
    """cffi's part, compiled once: it does not change with the helper's text. Goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="l4raw-variants."))
    atexit.register(shutil.rmtree, folder)
    source, target = folder / "l4raw_native.c", folder / "border.o"
    with contextlib.redirect_stdout(None):
        build_ffi.write_source(HELPER, source)
    include = [sysconfig.get_path("include"), *(str(ROOT / place) for place in INCLUDE_DIRS)]
    command = [*compiler(), "-c", "-fPIC", "-w", "-O0", *(f"-I{each}" for each in include)]
    _run([*command, str(source), "-o", str(target)])
    return target


def changed(folder: Path, patches: Iterable[Patch] = ()) -> None:
    """Put a changed copy of native/ into `folder`."""
    copy = folder / "native"
    shutil.copytree(NATIVE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for patch in patches:
        path = copy / patch.file
        text = path.read_text("utf-8")
        assert text.count(patch.old) == 1, f"{patch.file} has {text.count(patch.old)} times: {patch.old}"
        path.write_text(text.replace(patch.old, patch.new), "utf-8")


def sources(folder: Path) -> list[str]:
    """The C files of the copy in `folder`, or of the project."""
    return [str(folder / name) for name in HELPER.sources]


NOT_INLINED = Patch(
    "src/memory.h", "static inline __attribute__((always_inline))", "static __attribute__((unused))"
)
"""Each function is compiled once, not at each place that calls it: a fifth of the time at -O0."""


def build(folder: Path, patches: Iterable[Patch] = (), flags: Sequence[str] = ("-O0",)) -> Path:
    """Compile a changed copy of native/ into `folder`. The path of the extension module."""
    changed(folder, (*patches, NOT_INLINED) if "-O0" in flags else patches)
    target = folder / "_native.so"
    options = (*compiler(), "-fPIC", "-w", *COMPILE_ARGS, *flags)
    include = [f"-I{place}" for place in INCLUDE_DIRS]
    # By their names in `folder`, so that a text that was not changed is the same text.
    texts = [_run([*options, *include, "-E", source], folder) for source in HELPER.sources]
    objects = [_object(options, text) for text in texts]
    _run([*options, "-shared", *map(str, objects), str(_border()), "-o", str(target)])
    return target


@functools.cache
def _object(options: tuple[str, ...], text: str) -> Path:
    """This text compiled: once, as most changes leave most of the files as they were."""
    handle, path = tempfile.mkstemp(".o", dir=_border().parent)
    os.close(handle)
    _run([*options, "-c", "-x", "cpp-output", "-", "-o", path], text=text)
    return Path(path)


def _run(command: list[str], folder: Path = ROOT, text: str = "") -> str:
    done = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(path: Path, name: str = "_native") -> ModuleType:
    """The extension module at `path`, as another module than the installed one."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sanitizer_library() -> str | None:
    """What has to be loaded before Python is; None: this compiler has none."""
    done = subprocess.run([*compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True)
    path = Path(done.stdout.strip())
    return str(path.resolve()) if path.is_absolute() and path.exists() else None
