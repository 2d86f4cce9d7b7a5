"""The differential run, long, under sanitizers too; and races for longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.churn import CROWD, FEW, run, shim
from tests.conformance.test_differential import FRAMES, sanitized
from tests.differential import run as run_frames

MILLION = 1_000_000
"""Some five minutes of one processor; a third more with sanitizers."""

pytestmark = [pytest.mark.native, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("optimise", "frames"), [("-O1", FRAMES), ("-O2", MILLION)])
def test_the_helper_does_nothing_undefined(optimise: str, frames: int, tmp_path: Path) -> None:
    done = sanitized(tmp_path, frames, optimise=optimise)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(str(frames // 1000))


def test_executors_agree_on_a_million_frames(record_property: Callable[[str, object], None]) -> None:
    tally = run_frames(10, MILLION)
    record_property("figure", f"differential: {tally.frames} frames, {tally.rewritten} sent, no difference")
    assert tally.rewritten >= 0.3 * MILLION


@pytest.mark.parametrize("clients", [CROWD, FEW])
def test_queues_and_python_at_once(clients: int, tmp_path: Path) -> None:
    run(shim(tmp_path), 60, clients)
