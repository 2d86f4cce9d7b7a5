"""Python and C agree on frames that nobody chose; and a helper that does not agree is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from l4raw.wire.abi import EVENT_EVICTED_HALF_OPEN, EVENT_EVICTED_OLDEST, EVENT_STATELESS, VERDICT_NAMES
from tests.differential import Difference, run
from tests.kernel import ROOT as MAY_LOAD
from tests.mutants import MUTANTS
from tests.variants import SANITIZERS, Patch, build, load, sanitizer_library

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 260_000
FRAMES_FOR_A_MUTANT = (25_000, 100_000)
"""Nearly all are noticed within the first thousand. What is rare comes sooner or later, by the seed: so
all of the seeds get a short run first."""
SEEDS_FOR_A_MUTANT = (1, 2, 3, 4)
"""A SYN to a backend that drains is not in every run."""
SANITIZED = 8_000
"""tests/long has all of them."""

pytestmark = pytest.mark.native


@pytest.mark.timeout(600)
def test_executors_agree_on_noise(record_property: Callable[[str, object], None]) -> None:
    tally = run(1, FRAMES)
    record_property("figure", f"differential: {tally.frames} frames, {tally.rewritten} sent, no difference")
    assert tally.frames >= FRAMES
    assert tally.rewritten >= 0.3 * tally.frames
    assert (tally.by_kernel >= 0.3 * tally.rewritten and tally.admitted >= 1000) or not MAY_LOAD
    assert tally.completed >= 1000
    assert tally.answered >= 1000
    assert min(tally.missed["rule"], tally.missed["reset"]) >= 1000
    assert min(tally.missed["ports"], tally.missed["rest"]) >= 100
    assert tally.events[EVENT_EVICTED_HALF_OPEN] >= 1000
    assert min(tally.events[EVENT_EVICTED_OLDEST], tally.events[EVENT_STATELESS]) >= 100
    rare = {name: tally.verdicts[name] for name in VERDICT_NAMES if tally.verdicts[name] < 100}
    # Those are the engine's: when it cannot send, and when Python has enough to do.
    # Fragments that have to give way: tests/unit/test_fragments.py.
    assert rare == {"drop_tx": 0, "drop_overflow": 0, "drop_fragments_full": 0}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_helper_is_caught(name: str, tmp_path: Path) -> None:
    module = load(build(tmp_path, [MUTANTS[name]]))
    with pytest.raises((Difference, AssertionError, RuntimeError)) as caught:
        for frames, seed in product(FRAMES_FOR_A_MUTANT, SEEDS_FOR_A_MUTANT):
            run(seed, frames, module)
    if isinstance(caught.value, RuntimeError):  # a lock or a place that is never given back
        assert "was held for seconds" in str(caught.value)


def sanitized(
    folder: Path, frames: int, patches: tuple[Patch, ...] = (), optimise: str = "-O0"
) -> subprocess.CompletedProcess[str]:
    """Run `frames` frames on a helper with sanitizers."""
    library = sanitizer_library()
    if library is None:
        pytest.skip("this compiler has no AddressSanitizer")
    module = build(folder, patches, (*SANITIZERS, optimise))
    environment = os.environ | {
        "LD_PRELOAD": library,
        "PYTHONMALLOC": "malloc",
        # The interpreter never frees all that it has.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, "-m", "tests.sanitized", str(module), str(frames), "2"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.timeout(300)
def test_the_helper_does_nothing_undefined(tmp_path: Path) -> None:
    done = sanitized(tmp_path, SANITIZED)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(f"{SANITIZED // 1000}")


def test_the_sanitizer_sees_a_read_beyond_the_frame(tmp_path: Path) -> None:
    beyond = Patch("src/memory.h", "size <= (size_t)(end - start);", "size <= (size_t)(end - start) + 1;")
    done = sanitized(tmp_path, 5_000, (beyond,))
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr, done.stderr[-4000:]
