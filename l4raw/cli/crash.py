"""The file that an unexpected error leaves behind, for a report."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
import traceback
from pathlib import Path

from l4raw import __version__


def write(error: BaseException) -> Path:
    """Write the traceback and the versions below $XDG_STATE_HOME.

    Raises OSError if that is not possible, RuntimeError if there is no home folder.
    """
    state_home = os.environ.get("XDG_STATE_HOME")
    folder = Path(state_home) if state_home else Path.home() / ".local" / "state"
    path = folder / "l4raw" / f"crash-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    # A command line may have secrets.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(_report(error))
    return path


def _report(error: BaseException) -> str:
    return (
        f"l4raw {__version__}\nPython {platform.python_version()}\n{platform.system()} {platform.release()}"
        f" {platform.machine()}\ncommand: {shlex.join(sys.argv)}\n\n"
        + "".join(traceback.format_exception(error))
    )
