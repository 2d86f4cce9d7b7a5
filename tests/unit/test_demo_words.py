"""What the demos say: who is where, what to try, and why they cannot run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from l4raw.cli.demo import entering, guide

ROOT = Path(__file__).resolve().parents[2]


def host(name: str, pid: int, *links: tuple[str, str, str]) -> Any:
    found = [SimpleNamespace(interface=i, mac=mac, addresses=(address,)) for i, mac, address in links]
    return SimpleNamespace(name=name, pid=pid, links=found)


def network(mode: str) -> Any:
    client = host("client", 9, ("eth0", "02:00:00:00:00:01", "10.77.0.1/24"))
    balancer = host("balancer", 10, ("eth0", "02:00:00:00:00:02", "10.77.0.2/24"))
    balancer.links += host("", 0, ("eth1", "02:00:00:00:00:03", "10.78.0.2/24")).links
    b1 = host("b1", 11, ("eth0", "02:00:00:00:00:11", "10.78.0.11/24"))
    hosts, interfaces = [host("switch", 8), client, balancer, b1], ["eth0", "eth1"]
    return SimpleNamespace(
        mode=mode,
        client=client,
        balancer=balancer,
        backends=[b1],
        vip="10.77.0.100",
        hosts=hosts,
        interfaces=interfaces,
    )


def test_the_table_and_the_lines_to_type() -> None:
    assert guide(network("nat"), ["nsenter", "-t", "{pid}", "-n"], capture=True).splitlines() == [
        "the hosts, each a network namespace, known by the process that holds it:",
        "  client    PID 9       eth0  02:00:00:00:00:01  10.77.0.1/24",
        "  balancer  PID 10      eth0  02:00:00:00:00:02  10.77.0.2/24",
        "                        eth1  02:00:00:00:00:03  10.78.0.2/24",
        "  b1        PID 11      eth0  02:00:00:00:00:11  10.78.0.11/24",
        "try it, in another terminal:",
        "  nsenter -t 9 -n curl http://10.77.0.100/",
        "with --dataplane xdp, have the kernel forward: NAPI at the other ends of the balancer's wires:",
        "  nsenter -t 8 -n ethtool -K balancer-eth0 gro on  # switch",
        "  nsenter -t 8 -n ethtool -K balancer-eth1 gro on  # switch",
        "and watch it, in a third one:",
        "  nsenter -t 9 -n tcpdump -eni eth0 port 80  # client",
        "  nsenter -t 10 -n tcpdump -eni eth0 port 80  # balancer",
        "  nsenter -t 10 -n tcpdump -eni eth1 port 80  # balancer",
        "  nsenter -t 11 -n tcpdump -eni eth0 port 80  # b1",
    ]


def test_under_dsr_the_vip_is_shown_where_it_is() -> None:
    lines = guide(network("dsr-l2"), ["nsenter"], capture=True).splitlines()
    assert lines[4] == "  b1        PID 11      eth0  02:00:00:00:00:11  10.78.0.11/24, and 10.77.0.100 on lo"


def test_where_tcpdump_does_not_run_there_is_no_line_of_it() -> None:
    text = guide(network("nat"), ["nsenter"], capture=False)
    assert "nsenter tcpdump" not in text
    assert text.splitlines()[-1] == (
        "tcpdump does not run in a user namespace: --trace 5 shows frames, or run the demo as root"
    )


@pytest.mark.parametrize(
    ("user_namespace", "sudo", "line"),
    [
        (True, True, "nsenter -t {pid} -U -n --preserve-credentials"),
        (True, False, "nsenter -t {pid} -U -n --preserve-credentials"),
        (False, True, "sudo nsenter -t {pid} -n"),
        (False, False, "nsenter -t {pid} -n"),
    ],
)
def test_how_to_enter_a_namespace(user_namespace: bool, sudo: bool, line: str) -> None:
    assert " ".join(entering(user_namespace, sudo)) == line


def test_make_demo_without_rights_says_what_is_missing_and_what_to_do() -> None:
    as_nobody: list[str] = []
    if not os.geteuid():
        # The one capability lets it read the program, wherever that is.
        keep = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
        setpriv = shutil.which("setpriv")
        assert setpriv, "part of util-linux"
        as_nobody = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups", *keep]
    done = subprocess.run(
        [*as_nobody, sys.executable, "-m", "l4raw.netns.demo"],
        capture_output=True, text=True, cwd="/", check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    what, do = done.stderr.splitlines()
    assert what.startswith("the demo cannot make network namespaces: unshare: ")
    assert do == "run it as root (sudo make demo), or in namespaces of your own (unshare -Urnm make demo)"
