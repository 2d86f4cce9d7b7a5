"""Every vector, on every executor. Each file in tests/vectors is a story with a name and a reason."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from l4raw.engine.base import Received, forward
from l4raw.engine.replay import ReplayEngine
from l4raw.wire.abi import VERDICT_NAMES
from tests.tables import tables_named

VECTORS = sorted((Path(__file__).parents[1] / "vectors").glob("*.toml"))


MARGIN = b"\xa5" * 64


class DirtyEngine(ReplayEngine):
    """Hands frames out of the middle of a dirty buffer, and sees whether anything around them was written."""

    def poll(self, timeout: float) -> Iterator[Received]:
        for received in super().poll(timeout):
            buffer = bytearray(MARGIN + received.frame + MARGIN)
            frame = memoryview(buffer)[len(MARGIN) : -len(MARGIN)]
            yield received._replace(frame=frame, packet=frame)
            assert buffer.startswith(MARGIN) and buffer.endswith(MARGIN)


def _frames(step: dict[str, Any], key: str) -> list[bytes]:
    return [bytes.fromhex(step[key])] if key in step else []


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_vector(path: Path) -> None:
    story = tomllib.loads(path.read_text("utf-8"))
    assert story["name"] == path.stem
    tables = tables_named(story["tables"])
    for number, step in enumerate(story["step"], start=1):
        before = list(tables.verdicts)
        engine = DirtyEngine(_frames(step, "frame"), step["arm"], step.get("csum_start", 0))
        forward(engine, tables, 0)
        verdicts = [
            n for n, a, b in zip(VERDICT_NAMES, before, tables.verdicts, strict=True) for _ in range(b - a)
        ]
        assert verdicts == [step["verdict"]], f"step {number}: {story['why']}"
        assert [sent.frame.hex() for sent in engine.sent] == [out.hex() for out in _frames(step, "out")], (
            f"step {number}: {story['why']}"
        )
        assert [sent.arm for sent in engine.sent] == ([step["out_arm"]] if "out" in step else [])


def test_every_verdict_that_a_frame_can_have_is_in_a_vector() -> None:
    seen = {step["verdict"] for path in VECTORS for step in tomllib.loads(path.read_text("utf-8"))["step"]}
    elsewhere = {
        "drop_no_backend",  # tests/unit/test_steer.py
        "drop_next_hops_full",
        "drop_flows_full",
        "drop_tx",  # tests/unit/test_engines.py
    }
    assert seen | elsewhere == set(VERDICT_NAMES)
    assert not seen & elsewhere
