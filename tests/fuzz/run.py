"""Coverage-guided fuzzing of the helper: build it, run it, report.

    .venv/bin/python -m tests.fuzz.run [SECONDS [SEED]]       600 s without
    build/fuzz/fuzz -r INPUT build/fuzz/world-*               one input, in words

The compiler that builds the helper builds this too: its instrumentation, and
an engine of our own (main.c), since libFuzzer and AFL++ come with neither gcc
nor Debian's clang. Exit status: 0 nothing was found; 1 a finding, whose input
is saved.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.image import write_worlds
from tests.fuzz.seeds import write_seeds
from tests.variants import (
    COMPILE_ARGS,
    INCLUDE_DIRS,
    NOT_INLINED,
    ROOT,
    SANITIZERS,
    Patch,
    changed,
    compiler,
    sanitizer_library,
    sources,
)

HERE = Path(__file__).resolve().parent
FOLDER = ROOT / "build" / "fuzz"
SECONDS = 600
COVERAGE = ("-fsanitize-coverage=trace-pc,trace-cmp",)
ENVIRONMENT = {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
FIXED_PLACE = ("-fno-pie", "-no-pie")
"""So that a block has the same address in the program and in what is told of it."""


class Built(NamedTuple):
    """A fuzzer, ready to run."""

    folder: Path
    worlds: list[Path]
    seeds: int
    blocks: int
    """Of the helper's code."""

    @property
    def program(self) -> Path:
        """What is run."""
        return self.folder / "fuzz"


class Outcome(NamedTuple):
    """What a run came to."""

    status: int
    report: str
    """The last line of figures."""
    finding: Path | None
    """The input that shows it."""
    errors: str


def build(folder: Path, patches: Iterable[Patch] = (), optimise: str = "-O1") -> Built:
    """Compile the fuzzer with a (changed) copy of the helper, and write its worlds and seeds.

    Each function is compiled once: so a block is a place in the text, not one of its fifty inlined copies.
    What `folder` has in corpus/ stays: the next run begins with it.
    """
    shutil.rmtree(folder / "native", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    changed(folder, (*patches, NOT_INLINED))
    flags = [*COMPILE_ARGS, *FIXED_PLACE, *(f"-I{folder / place}" for place in INCLUDE_DIRS)]
    objects = []
    for source in (*sources(folder), *map(str, sorted(HERE.glob("*.c")))):
        # What is around the helper is not looked at, and fast.
        of_helper = *SANITIZERS, *COVERAGE, "-fno-inline", optimise
        instrumented = of_helper if source.startswith(str(folder)) else ("-O2",)
        objects.append(str(folder / Path(source).stem) + ".o")
        _run([*compiler(), "-w", *flags, *instrumented, "-c", source, "-o", objects[-1]])
    _run([*compiler(), *SANITIZERS, *FIXED_PLACE, *objects, "-o", str(folder / "fuzz")])
    (folder / "corpus").mkdir(exist_ok=True)
    shutil.rmtree(folder / "seeds", ignore_errors=True)
    return Built(folder, write_worlds(folder), write_seeds(folder / "seeds"), len(_blocks(folder / "fuzz")))


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def _blocks(program: Path) -> list[int]:
    """The addresses that the blocks of the program report."""
    lines = _run(["objdump", "-d", "--no-show-raw-insn", str(program)]).splitlines()
    calls = [i for i, line in enumerate(lines) if "call" in line and "<__sanitizer_cov_trace_pc>" in line]
    return [int(lines[i + 1].split(":")[0], 16) for i in calls if re.match(r" +[0-9a-f]+:", lines[i + 1])]


def unreached(built: Built) -> list[str]:
    """Lines of the helper that no input of the last run came to, in any of their inlined copies."""
    seen = {int(line, 16) for line in (built.folder / "reached").read_text().split()}
    blocks = _blocks(built.program)
    # One less: the address is where the call of the block returns to.
    said = _run(["addr2line", "-e", str(built.program), *(hex(block - 1) for block in blocks)])
    lines = [re.sub(r" \(.*", "", Path(line).name) for line in said.splitlines()]
    reached = {line for line, block in zip(lines, blocks, strict=True) if block in seen}
    return sorted(set(lines) - reached, key=lambda line: [line.split(":")[0], line.split(":")[1].zfill(5)])


def fuzz(built: Built, seconds: int, seed: int = 1, quiet: bool = False) -> Outcome:
    """Run for so long, printing figures as they come."""
    command = [str(built.program), str(built.folder), str(seconds), str(seed), *map(str, built.worlds)]
    report = ""
    with open(built.folder / "errors", "w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | ENVIRONMENT
        )
        assert process.stdout is not None
        for line in process.stdout:
            report = re.sub(r"(\d+) blocks", rf"\1 of {built.blocks} blocks", line.rstrip())
            if not quiet:
                print(report, flush=True)
        status = process.wait()
        errors.seek(0)
        said = errors.read()
    return Outcome(status, report, _save(built) if status else None, said)


def _save(built: Built) -> Path:
    """Keep the input that was running when the fuzzer ended."""
    current = (built.folder / "current").read_bytes()
    (size,) = struct.unpack_from("=I", current)
    data = current[4 : 4 + size]
    path = built.folder / f"finding-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def main() -> int:
    """As `make fuzz` runs it."""
    given = [int(each) for each in sys.argv[1:3]]
    seconds, seed = [*given, *(SECONDS, 1)[len(given) :]]
    if sanitizer_library() is None:
        raise SystemExit(f"{compiler()[0]} has no AddressSanitizer, or it is not gcc's: try CC=gcc")
    built = build(FOLDER)
    print(f"{built.seeds} seeds, {built.blocks} blocks, {seconds} s from seed {seed}", flush=True)
    outcome = fuzz(built, seconds, seed)
    if outcome.finding is None:
        print("nothing came to", *unreached(built))
        print(f"no finding in {seconds} s")
        return 0
    print(outcome.errors[-6000:], file=sys.stderr)
    worlds = " ".join(str(each) for each in built.worlds)
    print(
        f"a finding, or the fuzzer ended with status {outcome.status}. To see it again:\n"
        f"    {built.program} -r {outcome.finding} {worlds}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
