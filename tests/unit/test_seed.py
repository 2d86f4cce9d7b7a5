"""The kept ring seed: made once, the same ever after, and never guessed from a damaged file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from l4raw.control import seed as module
from l4raw.control.errors import L4Error
from l4raw.control.seed import FILE, is_kept, ring_seed, state_dir


def test_it_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    seed = ring_seed(folder)
    assert re.fullmatch(rb"[0-9a-f]{64}", seed)
    assert ring_seed(folder) == seed
    assert [path.name for path in folder.iterdir()] == [FILE]
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(L4Error, match="no home") as caught:
        state_dir({})
    assert "L4RAW_STATE_DIR" in str(caught.value.fix)
    assert state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/l4raw")


def test_root_of_a_users_own_namespace_keeps_it_with_the_users_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is user 0 too, but the host's folders are not its own."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "_owner", lambda _: 0)
    assert state_dir({"XDG_STATE_HOME": "/x"}) == module.SYSTEM
    monkeypatch.setattr(module, "_owner", lambda _: 65534)
    assert state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/l4raw")


def test_a_folder_of_ours_that_cannot_be_written_to_is_still_the_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a disk that has become read-only the kept seed is read, and no other one is made elsewhere."""
    folder = tmp_path / "l4raw"
    kept = ring_seed(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "SYSTEM", folder)
    monkeypatch.setattr(module, "_owner", lambda _: 0)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert ring_seed(state_dir({"XDG_STATE_HOME": str(tmp_path / "other")})) == kept


def test_whose_the_folder_is_moves_no_flow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It was restored from a backup, or a unit runs as another user."""
    folder = tmp_path / "l4raw"
    kept = ring_seed(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(module, "SYSTEM", folder)
    monkeypatch.setattr(module, "_owner", lambda path: 990 if path == folder else 0)
    assert ring_seed(state_dir({"XDG_STATE_HOME": str(tmp_path / "other")})) == kept


def test_a_folder_that_may_not_be_looked_into_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    assert not is_kept(Path("/nowhere"))
    monkeypatch.setattr(Path, "exists", refused)
    assert is_kept(Path("/nowhere"))


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (b"", 0),
        (b"\n", 1),
        (b"a5" * 31 + b"\n", 63),
        (b"a5" * 33, 66),
        (b"\0" * 64, 64),
        (b"\xff" * 64, 64),
        (b"a5" * 16 + b"\n" + b"a5" * 16, 65),
    ],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes, size: int) -> None:
    path = tmp_path / FILE
    path.write_bytes(content)
    with pytest.raises(L4Error) as caught:
        ring_seed(tmp_path)
    assert (caught.value.code, caught.value.where) == ("L4R-306", str(path))
    assert f"{size} bytes" in caught.value.what
    assert f"remove {path}" in caught.value.fix
    assert "[lb] ring_seed" in caught.value.fix
    assert path.read_bytes() == content


def test_what_a_process_that_was_killed_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".{FILE}.{os.getpid()}").write_text("half")
    assert ring_seed(tmp_path) == ring_seed(tmp_path)


def test_of_two_that_start_at_once_both_have_the_seed_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, first = os.link, "c3" * 32

    def late(source: str, target: Path) -> None:
        target.write_text(f"{first}\n")
        link(source, target)

    monkeypatch.setattr("os.link", late)
    assert ring_seed(tmp_path) == first.encode()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def synced(descriptor: int) -> None:
        assert os.fstat(descriptor).st_size == 65
        done.append("fsync")
        fsync(descriptor)

    def linked(source: str, target: Path) -> None:
        done.append("link")
        link(source, target)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr("os.link", linked)
    ring_seed(tmp_path)
    assert done == ["fsync", "link"]
