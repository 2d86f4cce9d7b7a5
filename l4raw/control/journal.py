"""The undo journal: what would outlive this process, written down before it is done.

Each step is a line of JSON in `undo.jsonl`, on the disk before the step is
taken. Unwinding reads the file backwards and undoes line by line; every undo
first looks whether the host still is as we left it, so it does no harm to
unwind twice, or a step that was never or only half taken.

The modes dsr-l2 and nat change nothing that outlives the process: their journal stays
empty. What does is a kind in `KINDS`.

Must not live here: who may read the journal (instance.py has the lock).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Final

from l4raw.control.errors import L4Error

FILE: Final = "undo.jsonl"
_SYSCTLS: Final = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class Record:
    """One step: what it changes, from which value, to which."""

    kind: str
    object: str
    old: str
    new: str
    boot_id: str
    netns: int
    """Inode of the network namespace that the object is in."""

    @classmethod
    def read(cls, line: bytes) -> Record | None:
        """None for a line that is not ours, or of another version."""
        try:
            values = json.loads(line)
        except ValueError:
            return None
        if not isinstance(values, dict) or values.keys() != {field.name for field in fields(cls)}:
            return None
        if any(type(value) is not (int if name == "netns" else str) for name, value in values.items()):
            return None
        return cls(**values)


def boot_id() -> str:
    """Different after every boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def netns_inode() -> int:
    """Names the network namespace of the calling thread among those of this kernel."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def _namespaces() -> set[int]:
    """The network namespaces that processes are in, as far as they may be seen, and the named ones."""
    found = set()
    for path in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*")):
        with suppress(OSError):
            found.add(path.stat().st_ino)
    return found


class Journal:
    """The journal of one instance, in its run folder. The caller holds the instance's lock."""

    def __init__(self, folder: int) -> None:
        """`folder`: descriptor of the run folder; it must outlive the journal. Creates no file yet."""
        self._folder = folder
        self._file: int | None = None
        self._boot_id = boot_id()
        self._netns = netns_inode()

    @contextmanager
    def step(self, kind: str, *, object: str, old: str, new: str) -> Iterator[None]:
        """`with journal.step(...): change it`. The line is on the disk before the body runs.

        Raises KeyError for an unknown kind, OSError if the line cannot be written: then nothing was
        changed. If the body raises, the line stays; `unwind` will look what became of the object.
        """
        KINDS[kind]
        self._append(Record(kind, object, old, new, self._boot_id, self._netns))
        yield

    def _append(self, record: Record) -> None:
        if self._file is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(FILE, flags, 0o640, dir_fd=self._folder)
            os.fsync(self._folder)
        line = json.dumps(asdict(record)).encode() + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(f"{FILE}: the line was not written as a whole")
        os.fsync(self._file)

    def unwind(self) -> list[str]:
        """Undo all steps, the last one first, and remove the file; one sentence for each step."""
        report = [sentence for line in reversed(self._lines()) if (sentence := self._undo(line))]
        self.close()
        try:
            os.unlink(FILE, dir_fd=self._folder)
        except FileNotFoundError:
            pass
        else:
            os.fsync(self._folder)
        return report

    def elsewhere(self) -> bool:
        """Is there a step that can only be undone in another network namespace, one that still exists?"""
        records = [record for line in self._lines() if (record := Record.read(line))]
        others = {r.netns for r in records if r.boot_id == self._boot_id} - {self._netns}
        return bool(others) and not others.isdisjoint(_namespaces())

    def close(self) -> None:
        """Give back the descriptor; the file stays."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lines(self) -> list[bytes]:
        """The whole lines. Raises L4R-205 if the file is not a regular file of ours."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.open(FILE, flags, dir_fd=self._folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _foreign(error.strerror) from error
        with os.fdopen(file, "rb") as stream:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
                raise _foreign("not a regular file of this user")
            # What follows the last line feed was cut short by a crash, before its step was taken.
            return stream.read().split(b"\n")[:-1]

    def _undo(self, line: bytes) -> str | None:
        record = Record.read(line)
        if record is None:
            return f"left: a line of {FILE} that cannot be read"
        if record.boot_id != self._boot_id:
            return None  # What it changed is gone with that boot.
        if record.kind not in KINDS:
            return f"left: {record.object}, of the unknown kind {record.kind}"
        if record.netns != self._netns:
            return f"left: {record.object} = {record.new}, in another network namespace ({record.netns})"
        return KINDS[record.kind](record)


def set_sysctl(journal: Journal, name: str, value: str) -> str | None:
    """Set net/... to `value`, journaled; a sentence about it, None if it has that value already.

    `name` has slashes, for an interface's name may have dots. Raises OSError.
    """
    path = _SYSCTLS / name
    old = path.read_text().strip()
    if old == value:
        return None
    with journal.step("sysctl", object=name, old=old, new=value):
        path.write_text(value)
    return f"sysctl {name}: {old} -> {value}"


def _undo_sysctl(record: Record) -> str | None:
    if ".." in PurePosixPath(record.object).parts or record.object.startswith("/"):
        return f"left: {record.object}, which is no sysctl"
    path = _SYSCTLS / record.object
    try:
        current = path.read_text().strip()
        if current == record.old:
            return None
        if current != record.new:
            return f"left: sysctl {record.object} = {current} (somebody changed it from our {record.new})"
        path.write_text(record.old)
    except FileNotFoundError:
        return None  # It went with its interface.
    except OSError as error:
        return f"left: sysctl {record.object} = {record.new} ({error.strerror})"
    return f"restored: sysctl {record.object} = {record.old}"


Undo = Callable[[Record], str | None]
"""Looks at the object and puts the old value back if it still has ours. Never raises; None: nothing to do."""

KINDS: Final[dict[str, Undo]] = {"sysctl": _undo_sysctl}


def _foreign(why: str | None) -> L4Error:
    return L4Error("L4R-205", what=f"{FILE} in the run folder was not made by l4raw: {why}", where=FILE)
