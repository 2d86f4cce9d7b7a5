"""`make demo` keeps its promise: one plain line a combination."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root


def test_the_demo_answers_every_request_and_says_so_once_for_each_combination() -> None:
    argv = [sys.executable, "-m", "l4raw.netns.demo"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^\S+ over \S+: \d+/\d+ answered$", done.stdout, re.MULTILINE)
    assert lines == ["dsr-l2 over raw: 300/300 answered", "nat over raw: 300/300 answered"]
    ways = re.findall(r"replies: (\d+) frames reached the client, (\d+) of them through", done.stdout)
    assert [(int(seen) > 0, passed == "0", passed == seen) for seen, passed in ways] == [
        (True, True, False),
        (True, False, True),
    ]
    changed = re.findall(r"^ +(\S+) .*\*$", done.stdout, re.MULTILINE)
    macs = ["eth.dst", "eth.src"]
    assert changed == [*macs, *macs, "ip.ttl", "ip.checksum", "ip.dst", "tcp.checksum"]
    assert done.stdout.count("the next request fails; the host is as it was") == 2
