"""A ping of the VIP, from a real one: answered by the balancer, whoever else is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from l4raw.netns import Log, Topology, dsr, nat

from tests.integration.running import running

pytestmark = pytest.mark.root

PINGS = 20


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
@pytest.mark.parametrize("build", [dsr, nat])
def test_a_ping_of_the_vip_is_answered(
    build: Callable[..., AbstractContextManager[Topology]], dataplane: str, version: int
) -> None:
    with build(version=version, log=Log(silent=True)) as network:
        with running(network, network.config_toml(dataplane=dataplane)) as balancer:
            # All sizes up to the MTU, odd ones too; ping checks what comes back, byte for byte.
            for size in (0, 1, 56, 57, 1400):
                argv = ["ping", "-c", str(PINGS), "-i", "0.005", "-W", "5", "-s", str(size), network.vip]
                said = network.client.run(argv).stdout
                assert re.search(rf"{PINGS} packets transmitted, {PINGS} received, 0% packet loss", said)
                assert not re.search("wrong|DUP|corrupt", said), said
                assert "ttl=64" in said
        assert balancer.verdict("echo") == 5 * PINGS
        assert balancer.lost == 0
