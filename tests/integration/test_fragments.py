"""UDP datagrams of 30 kB in fragments, in every order: real sockets at both ends, and every frame counted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from l4raw.netns import Host, Log, Topology, dsr, nat

from tests.cells import halved
from tests.integration.running import running

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
PIECES = 22
"""Fragments of one datagram; of IPv6 a few more."""


def script(host: Host, *words: object) -> subprocess.Popen[Any]:
    """Run pieces.py inside a host; returns once its sockets are there."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    argv = [sys.executable, "-P", "-m", "tests.integration.pieces", *map(str, words)]
    process = host.popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    ("build", "version", "order", "dataplane"),
    halved((dsr, nat), (4, 6), ("ordered", "reversed", "shuffled"), ("raw", "af_xdp")),
)
def test_a_large_datagram_arrives_whole(
    build: Callable[..., AbstractContextManager[Topology]], version: int, order: str, dataplane: str
) -> None:
    with build(2, backends=1, version=version, log=Log(silent=True)) as network:
        client, backend, vip = network.client, network.backends[0], network.vip
        is_nat = network.mode == "nat"
        own = backend.address if is_nat else vip
        gateway = (network.router or network.balancer).links[1].mac
        there = ("eth0", client.mac, network.balancer.mac, client.address, 5353, vip, 53)
        back = ("eth0", backend.mac, gateway, own, 53, client.address, 5353)
        with running(network, network.config_toml("53/udp", dataplane=dataplane)) as balancer:
            server = script(backend, "server", f"{order},ordered", *back)
            asks = script(client, "client", f"{order},{order}", *there)
            assert (server.wait(30), asks.wait(30)) == (0, 0)
        sent = balancer.verdict("forward")
        assert sent >= 2 * PIECES and sent % 2 == 0
        assert balancer.verdict("reply") == (sent if is_nat else 0)
        dropped = {name: n for name, n in balancer.counters["verdicts"].items() if n and "drop" in name}
        assert not dropped
