"""The states of a frame are the same numbers in Python and in native/xdp/xsk.h."""

from __future__ import annotations

import pytest

from l4raw.xdp import Statistics, frames, native

pytestmark = pytest.mark.xdp


@pytest.mark.parametrize("name", ["FREE", "HELD", "FILL", "TX"])
def test_state(name: str) -> None:
    assert getattr(frames, name) == getattr(native.lib, f"LX_FRAME_{name}")


def test_statistics_are_the_fields_of_the_struct_in_their_order() -> None:
    fields = native.ffi.typeof("struct lx_xsk_statistics").fields
    assert tuple(name for name, _ in fields) == Statistics._fields


def test_status() -> None:
    assert native.status().startswith("built, libbpf ")
