"""The fuzzer of the helper, for seconds: it reaches the code, and finds what is broken. See `make fuzz`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.run import ENVIRONMENT, build, fuzz
from tests.mutants import MUTANTS
from tests.variants import Patch, sanitizer_library

SECONDS = 15
PATIENCE = 60
REACHED_PERCENT = 75
"""Of all blocks. The others wait for another thread, or are bounds that no index passes."""

BROKEN = {
    "read beyond the frame": (
        Patch("src/memory.h", "size <= (size_t)(end - start);", "size <= (size_t)(end - start) + 1;"),
        "AddressSanitizer: heap-buffer-overflow",
    ),
    "echo's checksum": (MUTANTS["echo's checksum"], "FINDING: the checksum was right"),
    "one entry too many": (MUTANTS["one entry too many"], "entries are in use of"),
    "a hop that flows share": (
        Patch("src/hops.h", "l4_store(&hop->references, hop->references + 1);", ""),
        "FINDING: hop ",
    ),
    "the flow of the burst": (MUTANTS["flow of the burst"], "FINDING: "),
}
"""What is broken, and how it is reported."""

pytestmark = pytest.mark.native


@pytest.fixture(autouse=True)
def _sanitizer() -> None:
    if sanitizer_library() is None:
        pytest.skip("this compiler has no AddressSanitizer")


@pytest.mark.timeout(300)
def test_the_fuzzer_reaches_the_helper_and_finds_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    built = build(tmp_path)
    outcome = fuzz(built, SECONDS, quiet=True)
    assert outcome.finding is None, outcome.errors[-4000:]
    record_property("figure", f"fuzz: {outcome.report.strip()}")
    reached = len((tmp_path / "reached").read_text().split())
    assert reached * 100 >= REACHED_PERCENT * built.blocks, outcome.report


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_helper_is_found(name: str, tmp_path: Path) -> None:
    patch, said = BROKEN[name]
    built = build(tmp_path, [patch], "-O0")
    started = time.monotonic()
    outcome = fuzz(built, PATIENCE, quiet=True)
    assert outcome.finding is not None, f"{outcome.report} in {time.monotonic() - started:.0f} s"
    assert said in outcome.errors, outcome.errors[-4000:]
    again = subprocess.run(
        [built.program, "-r", outcome.finding, *built.worlds],
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert again.returncode != 0 and said in again.stderr
