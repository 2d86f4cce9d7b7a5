"""The raw engine for an ordinary user: real TCP through it inside `unshare -Urnm`.

The test is outside, as the user; the script below is inside, where the user is
root of a namespace that nobody else sees, and of nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.unprivileged

SIZE = 5_000_000
REQUESTS = 60

SCRIPT = """
import json, os, sys
from contextlib import ExitStack
from pathlib import Path
from l4raw.netns import Log, dsr, nat
from l4raw.netns.clients import download, make_file, many_requests, sha256, upload
from l4raw.netns.servers import web
from tests.integration.running import running

build, arms, size, requests = {"dsr": dsr, "nat": nat}[sys.argv[1]], *map(int, sys.argv[2:])
with build(arms, log=Log(silent=True)) as network, ExitStack() as stack:
    servers = [stack.enter_context(web(backend)) for backend in network.backends]
    for server in servers:
        digest = make_file(server.files / "file", size)
    url = f"http://{network.vip}"
    with running(network, network.config_toml()) as balancer:
        owner = os.stat(f"/proc/{balancer.process.pid}").st_uid
        answers = many_requests(network.client, f"{url}/", requests)
        got = download(network.client, f"{url}/files/file")
        upload(network.client, f"{url}/upload/copy", servers[0].files / "file")
    print(json.dumps({
        "uid_map": Path("/proc/self/uid_map").read_text().split(),
        "owner_of_up": owner,
        "mode": network.mode,
        "answers": answers,
        "sent": digest,
        "downloaded": got.sha256,
        "uploaded": [sha256(file) for server in servers for file in server.uploads.iterdir()],
        "verdicts": balancer.counters["verdicts"],
        "flows": balancer.backends(),
        "checksum_errors": sum(network.counters().values()),
    }))
"""


def environment() -> dict[str, str]:
    """Ours, with the path that finds the l4raw under test."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def inside(*arguments: object) -> dict[str, Any]:
    """Run SCRIPT as root of new user, network and mount namespaces; returns what it reports."""
    argv = ["unshare", "-Urnm", sys.executable, "-P", "-c", SCRIPT, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=100)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("arms", [1, 2])
@pytest.mark.parametrize("build", ["dsr", "nat"])
def test_real_tcp_through_the_raw_engine(build: str, arms: int) -> None:
    user = os.geteuid()
    assert user != 0, "run it by .ci/as-ordinary-user"
    report = inside(build, arms, SIZE, REQUESTS)
    assert report["uid_map"] == ["0", str(user), "1"]
    assert report["answers"].keys() == {"b1", "b2", "b3"}
    assert sum(report["answers"].values()) == REQUESTS
    assert report["downloaded"] == report["sent"]
    assert report["uploaded"] == [report["sent"]]
    assert sum(report["flows"].values()) == REQUESTS + 2
    assert report["verdicts"]["forward"] > 5 * REQUESTS
    assert (report["verdicts"]["reply"] > 5 * REQUESTS) == (build == "nat")
    assert report["checksum_errors"] == 0


def test_the_line_that_the_demo_prints_works_in_another_terminal(tmp_path: Path) -> None:
    """There the user is in no user namespace, so it takes more than for root."""
    with (tmp_path / "said").open("w+") as said:
        demo = subprocess.Popen(
            ["unshare", "-Urnm", sys.executable, "-P", "-m", "l4raw", "up", "--demo", "dsr"],
            stdout=subprocess.DEVNULL, stderr=said,
            env=environment() | {"L4RAW_RUN_DIR": str(tmp_path / "run")},
        )  # fmt: skip
        try:
            until = time.monotonic() + 20
            while not (
                found := re.search(r"^  (nsenter .* curl \S+)$", Path(said.name).read_text(), re.MULTILINE)
            ):
                assert demo.poll() is None and time.monotonic() < until, Path(said.name).read_text()
                time.sleep(0.05)
            done = subprocess.run(shlex.split(found[1]), capture_output=True, text=True, timeout=20)
        finally:
            demo.terminate()
            demo.wait(20)
    assert done.stdout in ("b1\n", "b2\n", "b3\n"), done
    assert "tcpdump does not run in a user namespace" in Path(said.name).read_text()


def test_make_demo_runs_where_its_error_sends_an_ordinary_user() -> None:
    argv = ["unshare", "-Urnm", sys.executable, "-P", "-m", "l4raw.netns.demo"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("300/300 answered") == 2
