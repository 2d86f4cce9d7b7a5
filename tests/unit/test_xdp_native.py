"""What is said of the compiled parts of l4raw.xdp."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4raw.xdp import native


def test_bpf_is_built_when_all_that_the_product_attaches_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_PACKAGE", tmp_path)
    (tmp_path / "xdp").mkdir()
    for name in native.BPF_PROGRAMS:
        assert native.bpf_status().startswith("not built: ")
        (tmp_path / "xdp" / f"{name}.bpf.o").touch()
    assert native.bpf_status() == "built"
