"""What `make fuzz` does, as long as it does by default; and what takes the fuzzer a while to find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.run import SECONDS, build, fuzz
from tests.mutants import MUTANTS

pytestmark = [pytest.mark.native, pytest.mark.timeout(1800)]


def test_ten_minutes_without_a_finding(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = fuzz(build(tmp_path), SECONDS, seed=2, quiet=True)
    assert outcome.finding is None, outcome.errors[-4000:]
    record_property("figure", f"fuzz: {outcome.report.strip()}")


@pytest.mark.parametrize("name", ["UDP zero sent", "partial not completed"])
def test_what_is_rare_is_found(name: str, tmp_path: Path) -> None:
    outcome = fuzz(build(tmp_path, [MUTANTS[name]]), SECONDS, quiet=True)
    assert "FINDING: " in outcome.errors, outcome.report
