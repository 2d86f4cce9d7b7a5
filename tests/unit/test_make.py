"""`make install` and `make uninstall`: what they say. Nothing is installed on the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make")


def make(*args: str | Path) -> str:
    command = ["make", "--no-print-directory", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_install_says_the_whole_command_that_removes_it(tmp_path: Path) -> None:
    recipe = make("--dry-run", "install", f"PREFIX={tmp_path}/opt", f"BIN={tmp_path}/bin")
    last = recipe.strip().splitlines()[-1]
    assert f"make uninstall PREFIX={tmp_path}/opt BIN={tmp_path}/bin" in last


def test_uninstall_without_anything_to_remove_says_so(tmp_path: Path) -> None:
    prefix, folder = tmp_path / "opt", tmp_path / "bin"
    places = f"PREFIX={prefix}", f"BIN={folder}"
    assert make("uninstall", *places) == (
        f"nothing to remove: neither {prefix} nor {folder}/l4raw was made by `make install`\n"
    )
    prefix.mkdir()
    folder.mkdir()
    (folder / "l4raw").symlink_to("/elsewhere/l4raw")
    assert make("uninstall", *places).startswith("nothing to remove: ")
    assert prefix.exists() and (folder / "l4raw").is_symlink(), "not ours"


def test_uninstall_removes_what_install_made(tmp_path: Path) -> None:
    prefix, folder = tmp_path / "opt", tmp_path / "bin"
    prefix.mkdir()
    folder.mkdir()
    (prefix / ".made-by-l4raw").touch()
    (folder / "l4raw").symlink_to(prefix / "bin" / "l4raw")
    said = make("uninstall", f"PREFIX={prefix}", f"BIN={folder}")
    assert f"removed {prefix}\n" in said and "nothing" not in said
    assert not prefix.exists() and not list(folder.iterdir())
