"""The undo journal and the locks, in a folder of the test: what a crash leaves, and what is not ours."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from l4raw.control import journal as journal_module
from l4raw.control.errors import L4Error
from l4raw.control.instance import Instance, default_name, heal, running
from l4raw.control.journal import Journal, Record, boot_id, netns_inode, set_sysctl
from l4raw.control.lock import Holder, Lock, default_run_dir
from l4raw.control.netlink import Interface

ETH1 = Interface("eth1", 2, bytes(6), up=True, mtu=1500, addresses=())
ETH2 = Interface("eth2", 3, bytes(6), up=True, mtu=1500, addresses=())
SYSCTL = "net/ipv4/conf/eth1/rp_filter"

HOLD = """
import sys
from pathlib import Path
from l4raw.control.instance import Instance
from l4raw.control.netlink import Interface
name, run_dir, *indices = sys.argv[1:]
instance = Instance(name, Path(run_dir))
instance.acquire([Interface(f"eth{i}", int(i), bytes(6), True, 1500, ()) for i in indices])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def sysctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /proc/sys, with one value in it."""
    root = tmp_path / "sys"
    (root / SYSCTL).parent.mkdir(parents=True)
    (root / SYSCTL).write_text("1\n")
    monkeypatch.setattr(journal_module, "_SYSCTLS", root)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "folder"
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def record(**changes: object) -> bytes:
    values = asdict(Record("sysctl", SYSCTL, "1", "0", boot_id(), netns_inode())) | changes
    return json.dumps(values).encode() + b"\n"


def write_journal(tmp_path: Path, *lines: bytes) -> None:
    (tmp_path / "folder" / "undo.jsonl").write_bytes(b"".join(lines))


def hold(name: str, run_dir: Path, *indices: str) -> subprocess.Popen[str]:
    """Another process that holds an instance until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, name, str(run_dir), *indices],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


# The journal.


def test_the_line_is_on_the_disk_before_the_step_is_taken(tmp_path: Path, folder: int) -> None:
    file = tmp_path / "folder" / "undo.jsonl"
    with Journal(folder).step("sysctl", object=SYSCTL, old="1", new="0"):
        assert Record.read(file.read_bytes()) == Record("sysctl", SYSCTL, "1", "0", boot_id(), netns_inode())


def test_steps_are_undone_in_reverse_and_the_file_goes(tmp_path: Path, folder: int, sysctls: Path) -> None:
    journal = Journal(folder)
    assert set_sysctl(journal, SYSCTL, "1") is None
    assert set_sysctl(journal, SYSCTL, "0") == f"sysctl {SYSCTL}: 1 -> 0"
    assert set_sysctl(journal, SYSCTL, "2") == f"sysctl {SYSCTL}: 0 -> 2"
    assert journal.unwind() == [f"restored: sysctl {SYSCTL} = 0", f"restored: sysctl {SYSCTL} = 1"]
    assert (sysctls / SYSCTL).read_text() == "1"
    assert os.listdir(tmp_path / "folder") == []
    assert journal.unwind() == []


def test_an_unknown_kind_is_refused_before_anything_is_written(tmp_path: Path, folder: int) -> None:
    with pytest.raises(KeyError), Journal(folder).step("planet", object="x", old="1", new="2"):
        pytest.fail("the step was taken")
    assert os.listdir(tmp_path / "folder") == []


def test_a_step_that_failed_is_undone_if_it_was_taken(folder: int, sysctls: Path) -> None:
    journal = Journal(folder)
    with pytest.raises(OSError, match="half"), journal.step("sysctl", object=SYSCTL, old="1", new="0"):
        (sysctls / SYSCTL).write_text("0")
        raise OSError("half")
    assert journal.unwind() == [f"restored: sysctl {SYSCTL} = 1"]
    with pytest.raises(OSError, match="not"), journal.step("sysctl", object=SYSCTL, old="1", new="0"):
        raise OSError("not at all")
    assert journal.unwind() == []
    assert (sysctls / SYSCTL).read_text() == "1"


def test_a_value_that_somebody_else_changed_is_left_and_reported(folder: int, sysctls: Path) -> None:
    journal = Journal(folder)
    set_sysctl(journal, SYSCTL, "0")
    (sysctls / SYSCTL).write_text("2\n")
    assert journal.unwind() == [f"left: sysctl {SYSCTL} = 2 (somebody changed it from our 0)"]
    assert (sysctls / SYSCTL).read_text() == "2\n"


@pytest.mark.parametrize(
    ("why", "lines", "report", "value"),
    [
        ("a whole line", [record()], [f"restored: sysctl {SYSCTL} = 1"], "1"),
        ("a torn last line", [record(), record(old="7")[:-9]], [f"restored: sysctl {SYSCTL} = 1"], "1"),
        ("only a torn line", [record()[:-1]], [], "0\n"),
        ("noise in the middle", [record(), b"\xff{]\n"],
         ["left: a line of undo.jsonl that cannot be read", f"restored: sysctl {SYSCTL} = 1"], "1"),
        ("another boot", [record(boot_id="long ago")], [], "0\n"),
        ("an unknown kind", [record(kind="link")], [f"left: {SYSCTL}, of the unknown kind link"], "0\n"),
        ("a way out", [record(object="../etc/passwd")], ["left: ../etc/passwd, which is no sysctl"], "0\n"),
        ("its interface is gone", [record(object="net/ipv4/conf/eth9/rp_filter")], [], "0\n"),
        ("a wrong type", [record(old=1)], ["left: a line of undo.jsonl that cannot be read"], "0\n"),
        ("another namespace", [record(netns=7)],
         [f"left: {SYSCTL} = 0, in another network namespace (7)"], "0\n"),
    ],
)  # fmt: skip
def test_what_a_crash_left_is_unwound(
    tmp_path: Path, folder: int, sysctls: Path, why: str, lines: list[bytes], report: list[str], value: str
) -> None:
    (sysctls / SYSCTL).write_text("0\n")
    write_journal(tmp_path, *lines)
    assert Journal(folder).unwind() == report, why
    assert (sysctls / SYSCTL).read_text() == value
    assert Journal(folder).unwind() == []


# The locks.


def test_nothing_is_left_after_a_clean_end(run_dir: Path) -> None:
    instance = Instance("eth1", run_dir)
    assert instance.acquire([ETH1]) == []
    assert stat.S_IMODE(run_dir.stat().st_mode) & 0o027 == 0
    assert running(run_dir) == [Holder("eth1", os.getpid(), ("eth1",))]
    assert instance.release() == []
    assert instance.release() == []
    assert not run_dir.exists()


def test_a_run_folder_that_was_there_stays(run_dir: Path) -> None:
    run_dir.mkdir(mode=0o750)
    instance = Instance("eth1", run_dir)
    instance.acquire([ETH1])
    instance.release()
    assert os.listdir(run_dir) == []


def test_a_second_instance_of_the_name_or_on_the_interface_is_refused(run_dir: Path) -> None:
    first = hold("eth1", run_dir, "2")
    try:
        with pytest.raises(L4Error, match=rf"eth1 is running already: .*\(process {first.pid}, on") as caught:
            Instance("eth1", run_dir).acquire([ETH2])
        assert (caught.value.code, caught.value.exit_code) == ("L4R-204", 4)
        before = sorted(run_dir.rglob("*"))
        with pytest.raises(L4Error, match=rf"eth1 is in use .*process {first.pid}") as caught:
            Instance("other", run_dir).acquire([ETH2, ETH1])
        assert caught.value.code == "L4R-204"
        assert sorted(run_dir.rglob("*")) == before
        third = Instance("eth2", run_dir)
        third.acquire([ETH2])
        assert [holder.instance for holder in running(run_dir)] == ["eth1", "eth2"]
        third.release()
    finally:
        kill(first)


def test_a_killed_instance_is_healed_by_the_next_one(run_dir: Path, sysctls: Path) -> None:
    kill(dead := hold("eth1", run_dir, "2"))
    (sysctls / SYSCTL).write_text("0\n")
    (run_dir / "eth1" / "undo.jsonl").write_bytes(record())
    assert running(run_dir) == []
    instance = Instance("eth1", run_dir)
    assert instance.acquire([ETH1]) == [
        f"instance eth1 (process {dead.pid}, on eth2) ended without cleaning up; done now",
        f"restored: sysctl {SYSCTL} = 1",
    ]
    instance.release()
    assert list(run_dir.iterdir()) == []


def test_heal_cleans_up_after_the_dead_and_leaves_the_living(run_dir: Path) -> None:
    assert heal(run_dir) == []
    alive = hold("alive", run_dir, "5")
    dead = hold("dead", run_dir, "6", "7")
    kill(dead)
    try:
        (run_dir / "a-file").write_text("not ours")
        assert heal(run_dir) == [
            f"left: {run_dir}/a-file was not made by l4raw: it is no folder",
            f"instance dead (process {dead.pid}, on eth6, eth7) ended without cleaning up; done now",
        ]
        assert sorted(os.listdir(run_dir)) == ["a-file", "alive", "interfaces"]
        assert os.listdir(run_dir / "interfaces") == [f"{netns_inode()}-5"]
        assert [holder.pid for holder in running(run_dir)] == [alive.pid]
    finally:
        kill(alive)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text("a file"),
        lambda path: path.symlink_to("/tmp"),
        lambda path: path.symlink_to("nowhere"),
        lambda path: (path.mkdir(), (path / "lock").symlink_to("/etc/hostname")),
        lambda path: (path.mkdir(), (path / "lock").symlink_to("nowhere")),
        lambda path: (path.mkdir(), subprocess.run(["mkfifo", path / "lock"], check=True)),
        lambda path: (path.mkdir(), (path / "lock").mkdir()),
        lambda path: (path.mkdir(), (path / "notes.txt").write_text("mine")),
        lambda path: (path.mkdir(), path.chmod(0o777)),
        lambda path: (path.mkdir(), (path / "lock").touch(), (path / "undo.jsonl").symlink_to("/etc/passwd")),
    ],
    ids=["file", "link", "dangling", "lock-link", "lock-dangling", "lock-fifo", "lock-folder", "stranger",
         "writable", "journal-link"],
)  # fmt: skip
def test_a_foreign_object_under_our_name_is_refused_and_untouched(run_dir: Path, make: object) -> None:
    run_dir.mkdir(mode=0o750)
    assert callable(make)
    make(run_dir / "eth1")
    before = snapshot(run_dir)
    with pytest.raises(L4Error) as caught:
        Instance("eth1", run_dir).acquire([ETH1])
    assert (caught.value.code, caught.value.exit_code) == ("L4R-205", 4)
    assert snapshot(run_dir) == before


def snapshot(folder: Path) -> list[tuple[str, int, str]]:
    """Every object: path, type and mode, what it links to or contains. Empty lock files do not count."""
    return [
        (str(path), facts.st_mode, os.readlink(path) if path.is_symlink() else "")
        for path in sorted(folder.rglob("*"))
        if not (stat.S_ISREG((facts := path.lstat()).st_mode) and not facts.st_size)
    ]


def test_a_run_folder_that_is_not_ours_alone_is_refused(run_dir: Path) -> None:
    run_dir.mkdir()
    run_dir.chmod(0o777)
    with pytest.raises(L4Error, match="not made by l4raw"):
        Instance("eth1", run_dir).acquire([])
    assert os.listdir(run_dir) == []


def test_a_lock_that_its_holder_just_removed_is_not_taken_for_ours(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Lock(run_dir, "eth1", "lock"), Lock(run_dir, "eth1", "lock")
    assert first.take()
    assert not second.take()
    flock = fcntl.flock

    def after_the_first_is_gone(file: int, operation: int) -> None:
        if first.folder >= 0:
            first.drop()
            assert not run_dir.exists()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", after_the_first_is_gone)
    assert second.take()
    assert (run_dir / "eth1" / "lock").exists()
    second.drop()
    assert not run_dir.exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "interfaces", ".hidden", "a b", "x\ty", "a\n", "\x7f", "a" * 65]
)
def test_a_name_that_is_no_file_name_is_refused(run_dir: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Instance(name, run_dir)


@pytest.mark.parametrize("name", ["eth1", "eth1.100", "a" * 64, "eth0@4026531840", "-x", "ä"])
def test_any_interface_can_name_an_instance(run_dir: Path, name: str) -> None:
    assert Instance(name, run_dir).name == name


def test_steps_of_another_namespace_stay_for_an_instance_there(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when an instance of that name is to start here."""
    folder = run_dir / "eth1"
    folder.mkdir(parents=True, mode=0o750)
    run_dir.chmod(0o750)
    (folder / "lock").write_text(json.dumps({"instance": "eth1", "pid": 1, "interfaces": ["eth1"]}))
    (folder / "undo.jsonl").write_bytes(record(netns=7))
    monkeypatch.setattr("l4raw.control.journal._namespaces", lambda: {7})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(L4Error, match="steps to undo in another network namespace") as caught:
        Instance("eth1", run_dir).acquire([])
    assert caught.value.code == "L4R-205"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_missing_privileges() -> None:
    with pytest.raises(L4Error) as caught:
        Instance("eth1", Path("/proc/l4raw/run")).acquire([])
    assert caught.value.code == "L4R-301"


def test_default_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_name("eth1") in ("eth1", f"eth1@{netns_inode()}")
    assert default_name("interfaces") == f"interfaces@{netns_inode()}"
    monkeypatch.setenv("L4RAW_RUN_DIR", "/somewhere/else")
    assert default_run_dir() == Path("/somewhere/else")
    monkeypatch.delenv("L4RAW_RUN_DIR")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_run_dir() == Path("/run/user/7/l4raw")
