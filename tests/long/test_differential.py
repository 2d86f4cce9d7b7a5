"""The differential run, whole, under sanitizers; with other seeds; and races for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.churn import CROWD, FEW, run, shim
from tests.conformance.test_differential import FRAMES, sanitized
from tests.differential import Run

pytestmark = [pytest.mark.native, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("optimise", ["-O1", "-O2"])
def test_the_helper_does_nothing_undefined(optimise: str, tmp_path: Path) -> None:
    done = sanitized(tmp_path, FRAMES, optimise=optimise)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(str(FRAMES // 1000))


@pytest.mark.parametrize("seed", range(10, 15))
def test_executors_agree_on_noise(seed: int) -> None:
    assert Run(seed).run(FRAMES).rewritten >= 0.3 * FRAMES


@pytest.mark.parametrize("clients", [CROWD, FEW])
def test_queues_and_python_at_once(clients: int, tmp_path: Path) -> None:
    run(shim(tmp_path), 60, clients)
