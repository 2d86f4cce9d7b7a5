"""What a test needs, and what happens when that is not there.

Lives here: the markers' meaning. A missing need is a skip that names it; but
root has everything, so for root a missing native part is a failure: `make
test` as root must not skip anything unnoticed.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from l4raw import xdp
from l4raw.engine import native

APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip `item` with the reason, or fail it, when its markers ask for what is not there."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: run `sudo make test`")
    if item.get_closest_marker("native") and (reason := native_missing()):
        if os.geteuid() == 0:
            pytest.fail(f"{reason}; run `make build`")
        pytest.skip(reason)
    if item.get_closest_marker("xdp") and not xdp.available():
        reason = f"AF_XDP part {xdp.status()}"
        if os.geteuid() == 0:
            pytest.fail(f"{reason}; run `make build`")
        pytest.skip(reason)
    if item.get_closest_marker("unprivileged") and (reason := user_namespaces_missing()):
        pytest.skip(reason)


def native_missing() -> str | None:
    """Return why tests of the native part cannot run, or None."""
    if not native.available():
        return f"native part {native.status()}"
    if shutil.which(os.environ.get("CC", "cc")) is None:
        return "no C compiler"
    return None


@functools.cache
def user_namespaces_missing() -> str | None:
    """Return why this user cannot make a network in a user namespace, or None."""
    done = subprocess.run(
        ["unshare", "-Urnm", "ip", "link", "add", "probe0", "type", "veth"], capture_output=True, text=True
    )
    if done.returncode == 0:
        return None
    hint = ""
    if APPARMOR.exists() and APPARMOR.read_text().strip() == "1":
        hint = "; kernel.apparmor_restrict_unprivileged_userns is 1"
    return f"no user namespace with a network: {done.stderr.strip()}{hint}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded under the name "figure", such as rates.

    Here and not beside those tests: with workers, only this file is loaded where the summary is printed.
    """
    passed = terminalreporter.getreports("passed")
    figures = [value for report in passed for name, value in report.user_properties if name == "figure"]
    if figures:
        terminalreporter.section("figures")
        for line in sorted(set(map(str, figures))):
            terminalreporter.write_line(line)
