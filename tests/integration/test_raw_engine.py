"""What a sender can send may be dropped and counted; it never ends the balancer."""

from __future__ import annotations

import socket

import pytest
from l4raw.netns import Log, nat
from l4raw.netns.clients import many_requests
from l4raw.netns.servers import web

from tests.integration.running import running

pytestmark = pytest.mark.root

LARGE, SMALL_MTU = 1_400, 1_000
DATAGRAMS = 5
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3  # linux/in.h


@pytest.mark.parametrize("dataplane", ["raw", "af_xdp"])
def test_frames_too_long_for_the_other_arm_are_dropped_and_the_rest_goes_on(dataplane: str) -> None:
    with nat(backends=1, log=Log(silent=True)) as network, web(network.backends[0]):
        network.balancer.ip(f"link set {network.interfaces[1]} mtu {SMALL_MTU}")
        with running(network, network.config_toml("80/tcp", "9/udp", dataplane=dataplane)) as balancer:
            with network.client.enter(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                # Full datagrams, whatever the path is thought to take.
                sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
                for _ in range(DATAGRAMS):
                    sock.sendto(b"x" * LARGE, (network.vip, 9))
                sock.sendto(b"x", (network.vip, 9))
            assert many_requests(network.client, f"http://{network.vip}/", 20) == {"b1": 20}
        assert balancer.verdict("drop_too_big") == DATAGRAMS, balancer.counters
        sent = {each["name"]: each["rx_packets"] for each in balancer.counters["services"]}
        assert sent["port-9-udp"] == 1
