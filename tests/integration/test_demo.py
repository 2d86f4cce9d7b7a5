"""The demos: `make demo` keeps its promise, one plain line a combination; `up --demo` says what to try."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from l4raw.netns import Host, Log

from tests.integration.starting import Place, Up

pytestmark = pytest.mark.root


def test_the_demo_answers_every_request_and_says_so_once_for_each_combination() -> None:
    argv = [sys.executable, "-m", "l4raw.netns.demo"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^\S+ over \S+: \d+/\d+ answered$", done.stdout, re.MULTILINE)
    assert lines == [
        f"{mode} over {plane}: 300/300 answered" for mode in ("dsr-l2", "nat") for plane in ("raw", "af_xdp")
    ]
    ways = re.findall(r"replies: (\d+) frames reached the client, (\d+) of them through", done.stdout)
    assert [(int(seen) > 0, passed == "0", passed == seen) for seen, passed in ways] == [
        *[(True, True, False)] * 2,
        *[(True, False, True)] * 2,
    ]
    changed = re.findall(r"^ +(\S+) .*\*$", done.stdout, re.MULTILINE)
    macs = ["eth.dst", "eth.src"]
    assert changed == [*macs * 2, *[*macs, "ip.ttl", "ip.checksum", "ip.dst", "tcp.checksum"] * 2]
    assert done.stdout.count("the next request fails; the host is as it was") == 4


def test_up_demo_says_who_is_where_after_ready_and_its_lines_work(tmp_path: Path) -> None:
    with Host("host", Log(silent=True)) as host:
        demo = Up(host, Place(tmp_path), "--demo", "nat").wait_ready()
        demo.wait_for(lambda: demo.err.rstrip().endswith("# b1"), "the last line")
        said = demo.err
        commands = re.findall(r"^  ((?:sudo )?nsenter .*?)(?:  # (\w+))?$", said, re.MULTILINE)
        assert [name for _, name in commands] == [
            "",
            "switch",
            "switch",
            "client",
            "balancer",
            "balancer",
            "b1",
        ]
        assert said.index("ip link add") < said.index("plan for") < said.index("the hosts, each")
        assert re.search(
            r"^  balancer  PID \d+ +eth0  02:00:00:00:00:02  10\.77\.0\.2/24$", said, re.MULTILINE
        )

        watching = subprocess.Popen(
            [*shlex.split(commands[3][0]), "-c1", "--immediate-mode"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert watching.stderr and "listening" in watching.stderr.readline() + watching.stderr.readline()
        done = subprocess.run(shlex.split(commands[0][0]), capture_output=True, text=True, timeout=20)
        assert done.stdout in ("b1\n", "b2\n", "b3\n"), done
        out, _ = watching.communicate(timeout=20)
        assert "> 02:00:00:00:00:02" in out and "10.77.0.100.80: Flags [S]" in out
        for command, _ in commands[1:3]:
            subprocess.run(shlex.split(command), check=True)
        demo.stop()
