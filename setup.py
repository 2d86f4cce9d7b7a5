"""How l4raw is packaged.

Lives here: the metadata, and the rule that compiled parts are optional: what
is missing for one is printed, and recorded in the package so that `l4raw
version` can say it, and the installation succeeds. Tools (pytest, ruff, mypy)
are configured in pyproject.toml.
"""

from __future__ import annotations

import importlib
import re
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
README = ROOT / "README.md"


@dataclass(frozen=True)
class Part:
    """Something compiled that l4raw can do without."""

    called: str
    record: str
    """File beside the modules of l4raw that says why it is not there."""
    costs: str
    """What is lost without it."""


PARTS = {
    "l4raw._native": Part(
        "native part",
        "native_not_built.txt",
        "everything written in C. The raw engine is plain Python and complete.",
    ),
    "l4raw._xdp": Part(
        "AF_XDP part", "xdp_not_built.txt", "l4raw.xdp, the AF_XDP binding. The raw engine needs none of it."
    ),
    "l4raw._burst": Part(
        "AF_XDP engine", "burst_not_built.txt", "dataplane af_xdp. The raw engine needs none of it."
    ),
    "bpf": Part(
        "BPF program",
        "bpf_not_built.txt",
        "the redirect program of l4raw.xdp. Sockets work with a program of your own.",
    ),
}
"""By extension module ("bpf" is none). l4raw/engine/native.py and l4raw/xdp/native.py read the records."""

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""Such an interpreter has no stable ABI (before PEP 803)."""


class BuildNative(build_ext):
    """Builds the parts, or records for each why not.

    cffi's own `cffi_modules` is not used: it runs the C preprocessor before
    any command is known, so that without a compiler nothing could be done.
    """

    def initialize_options(self) -> None:
        super().initialize_options()
        self.reasons: dict[str, str] = {}

    def run(self) -> None:
        super().run()
        package = Path(self.get_ext_fullpath("l4raw._native")).parent
        self.reasons["bpf"] = self.reason_without(self.compile_bpf, package / "xdp")
        for name, part in PARTS.items():
            self.record(package / part.record, part, self.reasons[name])
        for ext in self.extensions:
            if self.reasons[ext.name]:
                # An older build must not pass for this one.
                Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)

    def record(self, file: Path, part: Part, reason: str) -> None:
        """Write down, and say, why a part is not there; or that it is, when `reason` is empty."""
        if not reason:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(reason + "\n", encoding="utf-8")
        print(
            f"\nl4raw: the {part.called} was NOT built: {reason}\n"
            f"l4raw: what that costs: {part.costs}\n"
            "l4raw: to get it: install what is missing, then install l4raw again.\n"
            "l4raw: `l4raw version` says which one is installed.\n",
            file=sys.stderr,
        )

    def build_extension(self, ext: Extension) -> None:
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            reason = "Python's C headers are missing (Debian, Ubuntu: apt install python3-dev)"
        else:
            reason = self.reason_without(self.compile_module, ext)
        self.reasons[ext.name] = reason

    def reason_without(self, build: Callable[[Any], None], what: Any) -> str:
        """Run a step, and return why it could not be done; "" when it was."""
        try:
            build(what)
        except FileNotFoundError as error:
            install = "(Debian, Ubuntu: apt install gcc libc6-dev)"
            return f"no C compiler: {error.filename} was not found {install}"
        except ImportError as error:
            return f"{error.name} is missing (pip install cffi)"
        except builder("missing").Missing as error:
            return str(error)
        except Exception as error:  # whatever a compiler does, l4raw installs
            print(f"l4raw: {error}", file=sys.stderr)
            return (
                "the C compiler failed; `pip install -v` shows its messages "
                "(the C library's headers: on Debian and Ubuntu, apt install libc6-dev)"
            )
        return ""

    def compile_module(self, ext: Extension) -> None:
        """Let cffi write its source into the build folder, then compile all of it."""
        build_ffi = builder("build_ffi")
        module = next(module for module in build_ffi.MODULES if module.name == ext.name)
        source = Path(self.build_temp, f"{ext.name}.c")
        build_ffi.write_source(module, source)
        ext.sources = [str(source), *module.sources]
        ext.include_dirs = list(module.include_dirs)
        ext.extra_compile_args = [*build_ffi.COMPILE_ARGS, *build_ffi.link_flags(module, "cflags")]
        ext.extra_link_args = build_ffi.link_flags(module, "libs")
        super().build_extension(ext)

    def compile_bpf(self, folder: Path) -> None:
        """Package data that no other step copies: it is written where the modules are."""
        for old in folder.glob("*.bpf.o"):
            old.unlink()
        builder("build_bpf").compile_objects(folder)


def builder(name: str) -> Any:
    """Return a module of native/."""
    sys.path.insert(0, str(ROOT / "native"))
    return importlib.import_module(name)


def extension(name: str, folder: str) -> Extension:
    """Return an optional extension over the C files of a folder; BuildNative adds what cffi writes."""
    return Extension(
        name,
        sources=sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.c")),
        depends=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "native").glob("*/*.h")),
        py_limited_api=not FREE_THREADED,
        optional=True,
    )


def version() -> str:
    """Return __version__ of l4raw/__init__.py, without importing it."""
    text = (ROOT / "l4raw/__init__.py").read_text("utf-8")
    found = re.search(r'^__version__[^=\n]*= "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise SystemExit('l4raw/__init__.py has no line `__version__ = "..."`')
    return found.group(1)


setup(
    name="l4raw",
    version=version(),
    description="A layer-4 load balancer that a person can read",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="l4raw contributors",
    license="MIT",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["l4raw", "l4raw.*"]),
        "l4raw.netns",
        *(f"l4raw.netns.{name}" for name in find_packages("netns")),
    ],
    # The topologies are a folder of their own in the tree, and labs need them in an installed wheel.
    package_dir={"l4raw.netns": "netns"},
    package_data={"l4raw": ["py.typed", "control/*.toml"]},
    ext_modules=[
        extension("l4raw._native", "native/src"),
        extension("l4raw._xdp", "native/xdp"),
        extension("l4raw._burst", "native/src"),
    ],
    cmdclass={"build_ext": BuildNative},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
    entry_points={"console_scripts": ["l4raw = l4raw.cli.main:main"]},
    install_requires=[
        # 8.4.0 and 8.4.1 mishandle default values of flags.
        "click>=8.1,!=8.4.0,!=8.4.1",
        "rich",
        "pydantic>=2",
        "pyroute2>=0.9.5,<0.10",
        "scapy",
        "cffi",
    ],
    extras_require={
        # l4raw bench --plot
        "bench": ["matplotlib"],
        "dev": [
            "pytest>=8",
            "pytest-xdist",
            "pytest-timeout",
            "hypothesis",
            "ruff",
            "mypy",
            "types-cffi",
        ],
    },
)
