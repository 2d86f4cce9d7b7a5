"""The example in docs/xdp.md is a program: it runs, and it counts right."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import l4raw.xdp
from tests.integration.xdp_lab import ECHO, RIGHT, cable, udp, xdp_on

pytestmark = [pytest.mark.root, pytest.mark.xdp]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "xdp.md").read_text("utf-8")


def test_the_example_counts_packets(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "count.py"
    file.write_text(example)
    with cable() as (left, right):
        argv = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-P", str(file), "eth0"]
        counter = right.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert counter.stdout
        assert counter.stdout.readline() == "counting on eth0, copy mode; end with Ctrl-C\n"
        with udp(left) as sender:
            for _ in range(200):
                sender.sendto(b"x", (RIGHT, ECHO))
        left.run(["ping", "-c3", "-i0.01", "-W0.01", RIGHT], check=False)
        with left.enter():
            client = socket.socket()
        with client:
            client.setblocking(False)
            client.connect_ex((RIGHT, 80))
        counter.send_signal(signal.SIGINT)
        out, err = counter.communicate(timeout=10)
        assert (out, err) == ("udp 200\nicmp 3\ntcp 1\nlost 0\n", "")
        assert not xdp_on(right)


def test_every_public_name_is_in_the_page() -> None:
    for name in l4raw.xdp.__all__:
        assert re.search(rf"`{name}\b", PAGE), name
    for kind in (l4raw.xdp.Umem, l4raw.xdp.XskSocket, l4raw.xdp.Frame, l4raw.xdp.XdpProgram):
        for name in vars(kind):
            if not name.startswith("_") and name not in INTERNAL:
                assert re.search(rf"`{name}\b", PAGE), f"{kind.__name__}.{name}"


INTERNAL = {"adopt", "dismiss", "view", "ffi_lib", "place", "gone", "memory", "closed", "name"}
"""Between the modules of the package, or plain enough."""
