"""A ping of the VIP, from a real one: answered by the balancer, whoever else is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from subprocess import PIPE

import pytest
from l4raw.netns import Log, Topology, dsr, nat

from tests.integration.running import running

pytestmark = pytest.mark.root

PINGS = 5
INTERVAL = "0.2"
"""Seconds between two pings; and ping waits no longer for the last answer, if none before took half of it."""


SIZES = (0, 1, 56, 57, 1400)
"""Bytes: up to the MTU, odd ones too; ping compares what comes back, byte for byte."""


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("build", [dsr, nat])
def test_a_ping_of_the_vip_is_answered(
    build: Callable[..., AbstractContextManager[Topology]], dataplane: str, version: int
) -> None:
    with build(version=version, log=Log(silent=True)) as network:
        with running(network, network.config_toml(dataplane=dataplane)) as balancer:
            pings = [
                network.client.popen(
                    ["ping", "-c", str(PINGS), "-i", INTERVAL, "-W", "5", "-s", str(size), network.vip],
                    stdout=PIPE,
                )
                for size in SIZES
            ]
            for ping in pings:
                said = ping.communicate()[0]
                assert re.search(rf"{PINGS} packets transmitted, {PINGS} received, 0% packet loss", said)
                assert not re.search("wrong|DUP|corrupt", said), said
                assert "ttl=64" in said
        assert balancer.verdict("echo") == len(SIZES) * PINGS
        assert balancer.lost == 0
