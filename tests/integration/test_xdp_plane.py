"""The kernel path on a host: when it forwards and when not, and what is left of it.

That it forwards right, and nearly everything, is in test_matrix.py, beside the
other dataplanes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from l4raw.netns import NO_CHECK, Log, Topology, dsr
from l4raw.netns.clients import CURL, make_file, many_requests, sha256
from l4raw.netns.servers import nginx, web

from tests.integration.napi import gro
from tests.integration.networks import nat_with_web
from tests.integration.running import running
from tests.integration.starting import Place, Up

pytestmark = [pytest.mark.root, pytest.mark.xdp]

DEADLINE = 20.0
"""Seconds."""
SIZE = 20_000_000


@pytest.fixture
def network() -> Iterator[Topology]:
    with nat_with_web() as made:
        yield made


def wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def ask(network: Topology, requests: int = 20) -> None:
    assert many_requests(network.client, f"http://{network.vip}/", requests).total() == requests


def test_without_napi_at_a_peer_all_goes_over_af_xdp(network: Topology) -> None:
    with running(network, network.config_toml(dataplane="xdp", check=NO_CHECK)) as balancer:
        ask(network)
    assert balancer.dataplane == "xdp"
    engine = balancer.counters["engine"]
    assert engine["kernel_forwarded"] == 0 and engine["sent"] > 100
    told = [event for event in balancer.events if event["event"] == "kernel_path"]
    assert [event["forwards"] for event in told] == [False]
    assert [reason.split()[0] for reason in told[0]["reasons"]] == network.interfaces
    assert all(
        "does not send what XDP redirects" in reason and "gro on" in reason for reason in told[0]["reasons"]
    )


def test_it_begins_and_ends_with_gro_at_the_peers(network: Topology, tmp_path: Path) -> None:
    place = Place(tmp_path)
    config = place.config(network.config_toml(dataplane="xdp", check=NO_CHECK, lb={"ring_seed": "a"}))
    up = Up(network.balancer, place, "-c", config).wait_ready()
    wait(lambda: up.err.count("warning: xdp: the kernel forwards nothing") == 1)
    vanished = ", ".join(f"{name} dropped (test frames have vanished)" for name in network.interfaces)
    assert f"  test: frames that XDP redirects to {vanished}\n" in up.err
    gro(network, "on")
    wait(lambda: up.err.count("xdp: the kernel forwards\n") == 1)
    ask(network)
    # One interface follows the other: what is told of one alone comes, or does not, before both are seen.
    before = up.err.count("xdp: the kernel forwards nothing")
    gro(network, "off")
    wait(lambda: up.err.count("xdp: the kernel forwards nothing") > before)
    ask(network)
    up.stop()


@pytest.mark.parametrize("state", ["on", "off"])
def test_auto_takes_it_and_it_forwards_where_it_can(network: Topology, state: str) -> None:
    gro(network, state)
    with running(network, network.config_toml(dataplane="auto", check=NO_CHECK)) as balancer:
        ask(network)
    assert balancer.dataplane == "xdp"
    assert (balancer.counters["engine"]["kernel_forwarded"] > 0) == (state == "on")


def test_new_connections_are_admitted_in_the_kernel_under_dsr() -> None:
    with dsr(backends=2, log=Log(silent=True)) as network, ExitStack() as stack:
        gro(network, "on")
        for backend in network.backends:
            stack.enter_context(web(backend))
        with running(network, network.config_toml(dataplane="xdp", check=NO_CHECK)) as balancer:
            ask(network)
    counters = balancer.counters
    assert counters["engine"]["kernel_forwarded"] == counters["verdicts"]["forward"] >= 20 * 4
    assert sum(each["flows"] for each in counters["backends"]) == 20


def test_a_transfer_survives_a_kill_and_a_restart(tmp_path: Path) -> None:
    """DSR with a hash: the ring finds the backend again, and the program of the dead one is gone."""
    place, got = Place(tmp_path), tmp_path / "got"
    with dsr(backends=2, log=Log(silent=True)) as network, ExitStack() as stack:
        gro(network, "on")
        servers = [stack.enter_context(nginx(backend)) for backend in network.backends]
        digest = make_file(servers[0].files / "big", SIZE)
        (servers[1].files / "big").hardlink_to(servers[0].files / "big")
        config = place.config(network.config_toml(dataplane="xdp", check=NO_CHECK, lb={"ring_seed": "a"}))
        up = Up(network.balancer, place, "-c", config).wait_ready()
        slow = ["--limit-rate", str(SIZE // 4), "--output", str(got)]
        transfer = network.client.popen([*CURL, *slow, f"http://{network.vip}/files/big"])
        wait(lambda: got.exists() and got.stat().st_size > SIZE // 8)
        up.kill()
        wait(lambda: "prog/xdp" not in network.balancer.run(["ip", "-d", "link"]).stdout)
        assert transfer.poll() is None, "it was over before the balancer was"
        again = Up(network.balancer, place, "-c", config).wait_ready()
        assert transfer.wait(DEADLINE) == 0
        again.stop()
        assert sha256(got) == digest
