"""Every vector, on every executor. Each file in tests/vectors is a story with a name and a reason."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from l4raw.core.decision import WAITS
from l4raw.engine.base import forward
from l4raw.engine.replay import ReplayEngine, Sent
from l4raw.wire.abi import VERDICT_NAMES
from tests.executors import Executor, Outcome, state
from tests.kernel import EXECUTORS
from tests.tables import tables_named

VECTORS = sorted((Path(__file__).parents[1] / "vectors").glob("*.toml"))


def _bytes(step: dict[str, Any], key: str) -> bytes | None:
    return bytes.fromhex(step[key]) if key in step else None


def _story(path: Path) -> dict[str, Any]:
    story = tomllib.loads(path.read_text("utf-8"))
    assert story["name"] == path.stem
    return story


def _expected(step: dict[str, Any]) -> Outcome:
    """A frame that is not sent is left as it was."""
    frame = _bytes(step, "out") or _bytes(step, "frame")
    assert frame is not None
    made = tuple(map(bytes.fromhex, step.get("made", ())))
    arm = -1 if step["verdict"].startswith("drop") else step.get("out_arm", -1)
    verdict = WAITS if step["verdict"] == "waits" else VERDICT_NAMES.index(step["verdict"])
    return Outcome(verdict, frame, arm, made)


def _given(step: dict[str, Any]) -> tuple[bytes, int, int, int]:
    return bytes.fromhex(step["frame"]), step["arm"], step.get("csum_start", 0), step.get("segment", 0)


@pytest.mark.native
@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_vector(path: Path, executor: type[Executor]) -> None:
    story = _story(path)
    run = executor.named(story["tables"])
    for number, step in enumerate(story["step"], start=1):
        outcome = run.run(*_given(step))
        assert outcome == _expected(step), f"step {number}: {story['why']}"


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector_in_the_loop_of_the_engines(path: Path) -> None:
    story = _story(path)
    tables = tables_named(story["tables"])
    for number, step in enumerate(story["step"], start=1):
        before = list(tables.verdicts)
        frame, *what = _given(step)
        engine = ReplayEngine([frame], *what)
        forward(engine, tables, 0)
        verdicts = [
            n for n, a, b in zip(VERDICT_NAMES, before, tables.verdicts, strict=True) for _ in range(b - a)
        ]
        out = _bytes(step, "out")
        whole = ([] if out is None else [out]) + [*map(bytes.fromhex, step.get("made", ()))]
        sent = [Sent(each, step["out_arm"]) for each in whole]
        expected = step.get("counted", [step["verdict"]])
        assert (sorted(verdicts), engine.sent) == (sorted(expected), sent), f"step {number}: {story['why']}"


@pytest.mark.native
@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_executors_leave_the_same_tables(path: Path) -> None:
    story = _story(path)
    all_of_them = [executor.named(story["tables"]) for executor in EXECUTORS]
    for step in story["step"]:
        for each in all_of_them:
            each.run(*_given(step))
    reference, *others = (state(each.tables) for each in all_of_them)
    for each, left in zip(all_of_them[1:], others, strict=True):
        assert left == reference, each.name


def test_every_verdict_that_a_frame_can_have_is_in_a_vector() -> None:
    steps = [step for path in VECTORS for step in tomllib.loads(path.read_text("utf-8"))["step"]]
    seen = {verdict for step in steps for verdict in step.get("counted", [step["verdict"]])}
    elsewhere = {
        "drop_no_backend",  # tests/unit/test_steer.py
        "drop_next_hops_full",
        "drop_flows_full",
        "drop_fragment",  # tests/unit/test_fragments.py
        "drop_fragments_full",
        "drop_tx",  # tests/unit/test_engines.py
        "drop_overflow",  # tests/integration/test_af_xdp_frames.py
    }
    assert seen | elsewhere == set(VERDICT_NAMES)
    assert not seen & elsewhere
