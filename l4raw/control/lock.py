"""A lock in the run folder: an exclusive flock, which ends with its process however that ends.

    /run/l4raw/eth1/lock                    held while instance eth1 runs
    /run/l4raw/eth1/undo.jsonl              its journal, if it changed anything
    /run/l4raw/interfaces/4026531840-2      held by whoever uses that interface: namespace inode, index

What the file contains (process, instance, interfaces) informs people and
`down`; it never proves that something runs. Names are opened relative to
open folders and never through symbolic links, and what we did not make is left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from l4raw.control.errors import L4Error
from l4raw.control.journal import FILE as JOURNAL

INTERFACES: Final = "interfaces"
LOCK: Final = "lock"
SYSTEM_RUN_DIR: Final = Path("/run/l4raw")
_NAME_LENGTH = 64
_NAME = re.compile(rf"(?!\.)[^\s/\x00-\x1f\x7f]{{1,{_NAME_LENGTH}}}")
_POLL_S = 0.01
_REMOVED_S = 1.0
"""How long stopping instances may keep removing the folder under us."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def default_run_dir() -> Path:
    """$L4RAW_RUN_DIR, else /run/l4raw, else for who may not write there a folder of the user's own."""
    if named := os.environ.get("L4RAW_RUN_DIR"):
        return Path(named)
    if os.access(SYSTEM_RUN_DIR.parent, os.W_OK):
        return SYSTEM_RUN_DIR
    if users := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(users, "l4raw")
    return Path(f"/tmp/l4raw-{os.getuid()}")


def require_visible(run_dir: Path) -> None:
    """Raises L4R-301 if what runs in `run_dir` cannot be known, for the folder is somebody else's."""
    try:
        owner = os.stat(run_dir).st_uid
        os.listdir(run_dir)
    except PermissionError:
        raise _hidden(run_dir, "may not be read by this user") from None
    except OSError:
        return  # Nothing runs there.
    if os.geteuid() not in (0, owner):
        raise _hidden(run_dir, f"belongs to {_user(owner)}")


def require_no_other(run_dir: Path) -> None:
    """Raises L4R-301 if `run_dir` is but the folder of who may not use /run/l4raw, and that exists too."""
    if run_dir != SYSTEM_RUN_DIR and not os.environ.get("L4RAW_RUN_DIR") and SYSTEM_RUN_DIR.is_dir():
        owner = _user(os.stat(SYSTEM_RUN_DIR).st_uid)
        raise _hidden(SYSTEM_RUN_DIR, f"belongs to {owner}, and nothing runs in {run_dir}, which is yours")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


@dataclass(frozen=True, slots=True)
class Holder:
    """What the holder of a lock says about itself."""

    instance: str
    pid: int
    interfaces: tuple[str, ...]

    @classmethod
    def read(cls, text: bytes) -> Holder | None:
        """None for an empty file (nobody wrote yet) or one that is none of ours."""
        try:
            values = json.loads(text)
            return cls(str(values["instance"]), int(values["pid"]), tuple(map(str, values["interfaces"])))
        except (ValueError, TypeError, KeyError):
            return None

    def __str__(self) -> str:
        return f"instance {self.instance} (process {self.pid}, on {', '.join(self.interfaces)})"


def require_name(instance: str) -> None:
    """Raises ValueError for what cannot name an instance: it is a file name, and part of an nft table's."""
    if not _NAME.fullmatch(instance):
        raise ValueError(
            f"{instance!r} cannot name an instance: 1 to {_NAME_LENGTH} characters, no space, no slash,"
            " and no dot at the start"
        )


class Lock:
    """An exclusive flock on RUN_DIR/FOLDER/FILE. All three are made if need be."""

    def __init__(self, run_dir: Path, folder: str, file: str) -> None:
        require_name(folder)
        self.path = run_dir / folder / file
        self.holder: Holder | None = None
        """After `take`: who has it; if we have it, who ended without giving it back."""
        self.folder = -1
        """Descriptor of the folder while we have the lock."""
        self._run_dir = run_dir
        self._run = self._file = -1
        self._made_run_dir = False

    def take(self, wait: float = 0.0) -> bool:
        """False: another process has it, also after `wait` seconds.

        Raises L4R-205 for an object that l4raw did not make, L4R-301 where this user may not write.
        """
        until = time.monotonic() + wait
        while True:
            try:
                if self._try():
                    return True
                taken = True
            except FileNotFoundError as error:
                taken = False  # A stopping instance removed the folder between two of our steps: again.
                if time.monotonic() >= until + _REMOVED_S:
                    self.close()
                    raise _unwritable(self.path, error) from error
            except BaseException:
                self.close()
                raise
            self.close()
            if taken and time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)

    def _try(self) -> bool:
        """One attempt. Raises FileNotFoundError if the last holder removed it meanwhile."""
        with _refusals(self.path):
            self._open()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = True
        except BlockingIOError:
            taken = False
        if not os.fstat(self._file).st_nlink:
            raise FileNotFoundError(self.path)
        self.holder = Holder.read(os.pread(self._file, 1 << 16, 0))
        return taken

    def _open(self) -> None:
        self._run_dir.parent.mkdir(parents=True, exist_ok=True)
        self._run, made = _open_folder(self._run_dir, None)
        self._made_run_dir |= made
        self.folder, _ = _open_folder(self.path.parent, self._run)
        names = set(os.listdir(self.folder))
        if self.path.parent.name != INTERFACES and names - {LOCK, JOURNAL}:
            raise _foreign(self.path.parent, "it has files that no instance makes")
        for name in names & {self.path.name, JOURNAL}:
            facts = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
            _require_our_file(self.path.with_name(name), facts)
        self._file = os.open(self.path.name, _FILE, 0o640, dir_fd=self.folder)
        _require_our_file(self.path, os.fstat(self._file))

    def write(self, holder: Holder) -> None:
        """Say who we are. We hold the lock."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(asdict(holder)).encode() + b"\n", 0)

    def drop(self) -> None:
        """Remove the file, then the folders that are empty now, and give the lock back."""
        with contextlib.suppress(OSError):  # Removed by hand, or not empty.
            os.unlink(self.path.name, dir_fd=self.folder)
            os.rmdir(self.path.parent.name, dir_fd=self._run)
            # A folder that somebody chose and made is theirs, also when it is empty.
            chosen = "L4RAW_RUN_DIR" in os.environ or self._run_dir != default_run_dir()
            if self._made_run_dir or not chosen:
                os.rmdir(self._run_dir)
        self.close()

    def close(self) -> None:
        """Give the lock back and leave everything in place."""
        for descriptor in (self._file, self.folder, self._run):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self.folder = self._run = -1


def holder_of(lock: Path) -> Holder | None:
    """Who has the lock; None if nobody has, or if it is none."""
    try:
        file = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return Holder.read(os.pread(file, 1 << 16, 0))
    except OSError:
        return None
    finally:
        os.close(file)


def _open_folder(path: Path, parent: int | None) -> tuple[int, bool]:
    """Make it if need be; (descriptor, whether it was made). Raises L4R-205 unless it is ours alone.

    `parent` is the descriptor of the folder that it is in; None: go by the path.
    """
    name, made = (path if parent is None else path.name), True
    try:
        os.mkdir(name, 0o750, dir_fd=parent)
    except FileExistsError:
        made = False
        # Root without CAP_DAC_OVERRIDE may look at what it may not open.
        _require_ours(path, os.stat(name, dir_fd=parent, follow_symlinks=False))
    folder = os.open(name, _FOLDER, dir_fd=parent)
    try:
        _require_ours(path, os.fstat(folder))
    except L4Error:
        os.close(folder)
        raise
    return folder, made


def _require_our_file(path: Path, facts: os.stat_result) -> None:
    """Raises L4R-205 unless it is a regular file of this user."""
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        raise _foreign(path, "not a regular file of this user")


def _require_ours(path: Path, facts: os.stat_result) -> None:
    """Raises L4R-205 unless it is a folder of this user in which nobody else may write."""
    if not stat.S_ISDIR(facts.st_mode):
        raise _foreign(path, "it is no folder")
    if facts.st_uid != os.geteuid() or facts.st_mode & _OTHERS_MAY_WRITE:
        raise _foreign(path, "it belongs to another user, or others may write to it")


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the kernel refuses, told as an L4Error, but for FileNotFoundError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _unwritable(path, error) from error
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
            raise _foreign(path, error.strerror or "") from error
        raise


def _unwritable(path: Path, error: OSError) -> L4Error:
    return L4Error(
        "L4R-301",
        what=f"cannot make {path}: {error.strerror}",
        where=str(path),
        fix="run it with sudo, or name a folder of yours in L4RAW_RUN_DIR",
    )


def _hidden(run_dir: Path, why: str) -> L4Error:
    return L4Error(
        "L4R-301",
        what=f"needs root: {run_dir} {why}",
        where=str(run_dir),
        why="a balancer is known by its lock in the run folder, into which only the folder's owner may look.",
        fix="run it with sudo",
    )


def _foreign(path: Path, why: str) -> L4Error:
    return L4Error("L4R-205", what=f"{path} was not made by l4raw: {why}", where=str(path))
