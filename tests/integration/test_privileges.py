"""A running balancer has given away what it does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from l4raw.netns import Log, Topology, dsr, nat
from l4raw.netns.clients import many_requests
from l4raw.netns.servers import web

from l4raw.control.privileges import CAP_NET_ADMIN, CAP_NET_RAW
from tests.integration.running import running

pytestmark = pytest.mark.root

EXPECTED = f"{1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW:016x}"


def capabilities(pid: int) -> set[tuple[str, ...]]:
    """Permitted, effective and bounding sets, and no_new_privs, of all threads of a process."""
    wanted = ("CapPrm:", "CapEff:", "CapBnd:", "NoNewPrivs:")
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (line.split() for line in (task / "status").read_text().splitlines())
        values = {line[0]: line[1] for line in lines if line and line[0] in wanted}
        found.add(tuple(values[name] for name in wanted))
    return found


CHILD = """
import os, subprocess, sys
from l4raw.control.privileges import CAP_NET_ADMIN, CAP_NET_RAW, keep_only
keep_only((CAP_NET_ADMIN, CAP_NET_RAW))
sys.stdout.write(open("/proc/self/status").read())
sys.stdout.flush()
subprocess.run(["cat", "/proc/self/status"], check=True)
"""

AS_NOBODY = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    # dac_read_search: to read the program, wherever it is.
    "--inh-caps=-all,+net_admin,+net_raw,+dac_read_search",
    "--ambient-caps=-all,+net_admin,+net_raw,+dac_read_search",
]  # fmt: skip


@pytest.mark.parametrize("before", [[], AS_NOBODY], ids=["root", "another-user"])
def test_a_program_that_it_starts_has_the_same_two(before: list[str]) -> None:
    done = subprocess.run([*before, sys.executable, "-c", CHILD], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sets = [line.split() for line in done.stdout.splitlines() if line.startswith("Cap")]
    assert [name for name, _ in sets] == ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] * 2
    # Without CAP_SETPCAP nobody can lower the bounding set; no_new_privs makes it worthless.
    assert {mask for name, mask in sets if before == [] or name != "CapBnd:"} == {EXPECTED}


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
def test_only_two_capabilities_are_left_in_every_thread_and_it_still_works(dataplane: str) -> None:
    with (
        dsr(log=Log(silent=True)) as network,
        web(network.backends[0]),
        running(network, one(network, dataplane)) as up,
    ):
        assert capabilities(up.process.pid) == {(EXPECTED, EXPECTED, EXPECTED, "1")}
        assert many_requests(network.client, f"http://{network.vip}/", 3) == {"b1": 3}


def test_the_rule_of_nft_can_be_loaded_without_more() -> None:
    with nat(backends=1, ip_forward=True, log=Log(silent=True)) as network, web(network.backends[0]):
        with running(network, network.config_toml("80/tcp")):
            assert "l4raw" in network.balancer.run(["nft", "list", "tables"]).stdout
            assert many_requests(network.client, f"http://{network.vip}/", 3) == {"b1": 3}
        assert "l4raw" not in network.balancer.run(["nft", "list", "tables"]).stdout


def one(network: Topology, dataplane: str) -> str:
    """A configuration with b1 alone."""
    text = network.config_toml("80/tcp", dataplane=dataplane)
    return "\n".join(line for line in text.splitlines() if '"b2"' not in line and '"b3"' not in line)
