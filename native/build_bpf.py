"""Compile the BPF programs of native/bpf/ with clang.

Lives here: the compiler's command line. Must not live here: when this runs
and what happens when it cannot (setup.py).
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from missing import Missing

SOURCES = Path(__file__).resolve().parent / "bpf"


def compile_objects(folder: Path) -> None:
    """Write an object for each *.bpf.c into `folder`, with BTF and without debug information.

    Raises Missing without clang or libbpf's headers, RuntimeError with
    clang's own words when it refuses a source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(SOURCES.glob("*.bpf.c")):
        target = folder / source.with_suffix(".o").name
        unfinished = target.with_suffix(".unfinished")
        try:
            _run([
                "clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror",
                f"-I{SOURCES.parent / 'include'}",
                *_headers(), "-c", str(source), "-o", str(unfinished),
            ])  # fmt: skip
            # Leaves BTF, which the kernel reads; DWARF is only for people.
            _run(["llvm-strip", "-g", str(unfinished)])
            unfinished.rename(target)
        finally:
            unfinished.unlink(missing_ok=True)


def main(folder: str) -> None:
    """Compile into `folder`; for `make lint`."""
    compile_objects(Path(folder))


def _headers() -> list[str]:
    """Debian has <asm/types.h> in a folder of the architecture, which clang for BPF does not search."""
    folder = Path("/usr/include", sysconfig.get_config_var("MULTIARCH") or "-")
    return [f"-I{folder}"] if folder.is_dir() else []


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        package = {"clang": "clang"}.get(command[0], "llvm")
        raise Missing(f"{command[0]} was not found (Debian, Ubuntu: apt install {package})") from None
    if "bpf/bpf_helpers.h" in done.stderr and done.returncode:
        raise Missing("the headers of libbpf are missing (Debian, Ubuntu: apt install libbpf-dev)")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    main(sys.argv[1])
