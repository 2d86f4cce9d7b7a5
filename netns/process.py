"""Small things that a host is made of: the printed log, a held folder, ending a process, setns(2).

Lives here: what knows nothing of networks. Must not live here: Host (host.py).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

CLONE_NEWNET = 0x40000000
"""setns(2): the descriptor is that of a network namespace."""

GRACE = 5.0
"""Seconds that a program gets between SIGTERM and SIGKILL when its host is closed."""


@dataclass
class Log:
    """Where commands are printed before they run.

    `stream` None means stderr as it is at that moment. A silent log prints
    nothing. `lines` keeps all that was printed or would have been.
    """

    stream: TextIO | None = None
    silent: bool = False
    lines: list[str] = field(default_factory=list)

    def __call__(self, host: str, command: str) -> None:
        """Print `command` as typed at the prompt of `host`."""
        line = f"{host}# {command}"
        self.lines.append(line)
        if not self.silent:
            print(line, file=self.stream or sys.stderr, flush=True)


def wait_or_kill(process: subprocess.Popen[Any], deadline: float) -> None:
    """Collect a process that was told to end; kill it at `deadline` (of time.monotonic)."""
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that goes with the context, and also when this process is killed.

    Held like a namespace: a shell waits on a pipe from us, and removes it then.
    """
    folder = tempfile.mkdtemp(prefix=prefix)
    argv = ["sh", "-c", 'read -r _; rm -rf -- "$1"', "sh", folder]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True):
        yield Path(folder)


def setns(descriptor: int, purpose: str) -> None:
    """setns(2) by ctypes, since os.setns came with Python 3.12. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot {purpose}: {os.strerror(number)}")


def tool(name: str) -> str | None:
    """Where a program is installed, or None; looks into the administrator's folders too."""
    return shutil.which(name, path=environment()["PATH"])


def environment() -> dict[str, str]:
    """Ours, with the folders that hold `ip` and `nginx` and that an ordinary user's PATH may lack."""
    return {**os.environ, "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"}
