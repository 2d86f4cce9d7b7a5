"""How l4raw is packaged.

Lives here: the metadata, and the rule that the native part is optional: what
is missing for it is printed, and recorded in the package so that `l4raw
version` can say it, and the installation succeeds. Tools (pytest, ruff, mypy)
are configured in pyproject.toml.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
README = ROOT / "README.md"
REASON_FILE = "native_not_built.txt"
"""Beside the modules of l4raw; read by l4raw/engine/native.py."""

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""Such an interpreter has no stable ABI (before PEP 803)."""


class BuildNative(build_ext):
    """Builds l4raw._native, or records why not.

    cffi's own `cffi_modules` is not used: it runs the C preprocessor before
    any command is known, so that without a compiler nothing could be done.
    """

    reason: str | None = None

    def run(self) -> None:
        super().run()
        built = Path(self.get_ext_fullpath("l4raw._native"))
        record = built.parent / REASON_FILE
        if self.reason is None:
            record.unlink(missing_ok=True)
            return
        # An older build must not pass for this one.
        built.unlink(missing_ok=True)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(self.reason + "\n", encoding="utf-8")
        print(
            f"\nl4raw: the native part was NOT built: {self.reason}\n"
            "l4raw: what that costs: everything written in C. The raw engine is plain Python and complete.\n"
            "l4raw: to get it: install what is missing, then install l4raw again.\n"
            "l4raw: `l4raw version` says which one is installed.\n",
            file=sys.stderr,
        )

    def build_extension(self, ext: Extension) -> None:
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            self.reason = "Python's C headers are missing (Debian, Ubuntu: apt install python3-dev)"
            return
        try:
            self.compile_native(ext)
        except FileNotFoundError as error:
            self.reason = (
                f"no C compiler: {error.filename} was not found (Debian, Ubuntu: apt install gcc libc6-dev)"
            )
        except ImportError as error:
            self.reason = f"{error.name} is missing (pip install cffi)"
        except Exception as error:  # whatever a compiler does, l4raw installs
            print(f"l4raw: {error}", file=sys.stderr)
            self.reason = (
                "the C compiler failed; `pip install -v` shows its messages "
                "(the C library's headers: on Debian and Ubuntu, apt install libc6-dev)"
            )

    def compile_native(self, ext: Extension) -> None:
        """Let cffi write its source into the build folder, then compile all of it."""
        sys.path.insert(0, str(ROOT / "native"))
        import build_ffi

        source = Path(self.build_temp, "l4raw_native.c")
        build_ffi.write_source(source)
        ext.sources = [str(source), *build_ffi.SOURCES]
        ext.include_dirs = list(build_ffi.INCLUDE_DIRS)
        ext.extra_compile_args = list(build_ffi.COMPILE_ARGS)
        super().build_extension(ext)


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
        Extension(
            "l4raw._native",
            sources=["native/src/abi.c"],
            depends=["native/include/l4raw_abi.h", "native/src/abi.h"],
            py_limited_api=not FREE_THREADED,
            optional=True,
        )
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
