"""Who runs: an instance's locks, its name, and what is left when it ends.

A folder whose lock is free is stale: its journal is unwound and it is removed.

Must not live here: how a lock file is opened safely (lock.py), what a journal
can undo (journal.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from l4raw.control.errors import L4Error
from l4raw.control.journal import Journal, netns_inode
from l4raw.control.lock import INTERFACES, LOCK, Holder, Lock, holder_of
from l4raw.control.netlink import Interface

_WAIT_S = 0.5
"""A process that was just killed still has its lock for a moment."""


def default_name(interface: str) -> str:
    """The interface's name in the machine's namespace; elsewhere with the namespace's inode."""
    inode = netns_inode()
    # Unreadable: then process 1 is not ours, and so is its namespace.
    with contextlib.suppress(OSError):
        if os.stat("/proc/1/ns/net").st_ino == inode and interface != INTERFACES:
            return interface
    return f"{interface}@{inode}"


def interface_file(interface: Interface) -> str:
    """Names an interface among those of all network namespaces."""
    return f"{netns_inode()}-{interface.index}"


class Instance:
    """A running balancer. `acquire`, use its `journal`, `release`."""

    def __init__(self, name: str, run_dir: Path) -> None:
        """Raises ValueError for a name that is no file name."""
        if name == INTERFACES:
            raise ValueError(f"an instance cannot be named {name!r}")
        self.name = name
        self._run_dir = run_dir
        self._lock = Lock(run_dir, name, LOCK)
        self._interface_locks: list[Lock] = []
        self._journal: Journal | None = None

    @property
    def journal(self) -> Journal:
        """Only between `acquire` and `release`."""
        assert self._journal is not None, "the instance has no lock"
        return self._journal

    def acquire(self, interfaces: Sequence[Interface]) -> list[str]:
        """Take the locks; a sentence for each thing that an instance which died had left behind.

        Raises L4R-204 if the name or an interface is in use, L4R-205 for a foreign object under our
        name, L4R-301 where this user may not write. Then nothing is held and nothing was made.
        """
        if not self._lock.take(_WAIT_S):
            raise _in_use(f"instance {self.name} is running already", str(self._lock.path), self._lock.holder)
        journal = Journal(self._lock.folder)
        try:
            report = _heal(self._lock, journal)
        except BaseException:
            self._lock.close()  # what is there stays, for whoever can undo it
            raise
        try:
            self._journal = journal
            us = Holder(self.name, os.getpid(), tuple(interface.name for interface in interfaces))
            self._lock.write(us)
            for interface in interfaces:
                self._take_interface(interface, us)
        except BaseException:
            self._drop()
            raise
        return report

    def _take_interface(self, interface: Interface, us: Holder) -> None:
        lock = Lock(self._run_dir, INTERFACES, interface_file(interface))
        if not lock.take(_WAIT_S):
            raise _in_use(f"{interface.name} is in use by another instance", interface.name, lock.holder)
        lock.write(us)
        self._interface_locks.append(lock)

    def release(self) -> list[str]:
        """Unwind the journal and remove what we made; a sentence for each step. May be called twice."""
        if self._journal is None:
            return []
        report = self._journal.unwind()
        self._drop()
        return report

    def _drop(self) -> None:
        if self._journal:
            self._journal.close()
            self._journal = None
        for lock in (*self._interface_locks, self._lock):
            lock.drop()
        self._interface_locks.clear()


def running(run_dir: Path) -> list[Holder]:
    """Every instance that holds its lock now. Makes nothing and changes nothing."""
    found = (holder_of(run_dir / name / LOCK) for name in _names(run_dir) if name != INTERFACES)
    return [holder for holder in found if holder is not None]


def heal(run_dir: Path) -> list[str]:
    """Unwind and remove what dead instances left in the run folder; a sentence for each thing."""
    report = []
    for name in _names(run_dir):
        files = _names(run_dir / name) if name == INTERFACES else [LOCK]
        for lock in [Lock(run_dir, name, file) for file in files]:
            try:
                if lock.take():
                    report += [] if name == INTERFACES else _heal(lock, Journal(lock.folder))
                    lock.drop()
            except L4Error as error:
                lock.close()
                report.append(f"left: {error.what}")
    # Whoever was killed between making this folder and a file in it has left it empty.
    with contextlib.suppress(OSError):
        os.rmdir(run_dir / INTERFACES)
    return report


def _heal(lock: Lock, journal: Journal) -> list[str]:
    """We hold the lock. Unwind the journal of whoever had it and did not give it back.

    Raises L4R-205 if that has to be done in another network namespace.
    """
    if journal.elsewhere():
        raise L4Error(
            "L4R-205",
            what=f"{lock.path.parent.name} has steps to undo in another network namespace: l4raw down, there",
            where=str(lock.path),
        )
    report = journal.unwind()
    if lock.holder:
        report.insert(0, f"{lock.holder} ended without cleaning up; done now")
    return report


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def _in_use(what: str, where: str, holder: Holder | None) -> L4Error:
    return L4Error(
        "L4R-204",
        what=f"{what}: {holder}" if holder else what,
        where=where,
    )
