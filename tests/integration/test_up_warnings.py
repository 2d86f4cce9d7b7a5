"""What `l4raw up` tells of its backends while it runs, and of a VIP that looks like a typo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from l4raw.netns import Log, Topology, dsr

from tests.integration.starting import Place, Up, echo, run, toml

pytestmark = pytest.mark.root


@pytest.fixture
def network() -> Iterator[Topology]:
    with dsr(backends=2, log=Log(silent=True)) as built:
        yield built


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def events(balancer: Up, name: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in balancer.out.splitlines()]
    return [event for event in found if event["event"] == name]


def flush(network: Topology) -> None:
    """Make the balancer's kernel forget b2's MAC: it would find out by itself after some seconds only."""
    network.balancer.ip(f"neigh flush to {network.backends[1].address}")


LOST = "warning: nobody answers ARP for b2 any more: frames to there are dropped\n"
BACK = "ARP for b2 is answered now: frames to there are sent\n"


def test_a_backend_that_dies_is_told_once_and_so_is_its_return(network: Topology, place: Place) -> None:
    dead = network.backends[1]
    balancer = Up(network.balancer, place, "-c", place.config(toml(network))).wait_ready()
    assert LOST not in balancer.err
    dead.ip("link set eth0 down")
    flush(network)
    balancer.wait_for(lambda: LOST in balancer.err, "the loss is told")
    with echo(network) as servers:
        assert all(servers.ask() for _ in range(10))  # each until it comes to b1
    dead.ip("link set eth0 up")
    balancer.wait_for(lambda: BACK in balancer.err, "the return is told")
    balancer.stop()
    assert (balancer.err.count(LOST), balancer.err.count(BACK)) == (1, 1)
    counters = {line.split(":")[0].strip(): line for line in balancer.err.splitlines() if " dropped" in line}
    assert ", 0 dropped" in counters["port-53-udp/b1"]
    assert ", 0 dropped" not in counters["port-53-udp/b2"]


def test_a_lost_backend_in_json(network: Topology, place: Place) -> None:
    config = place.config(toml(network))
    balancer = Up(network.balancer, place, "--json", "-c", config).wait_ready()
    network.backends[1].ip("link set eth0 down")
    flush(network)
    balancer.wait_for(lambda: events(balancer, "backends"), "the event")
    network.backends[1].ip("link set eth0 up")
    balancer.wait_for(lambda: len(events(balancer, "backends")) == 2, "the second one")
    balancer.stop()
    assert [
        (event["lost"], event["found"], event["unresolved"]) for event in events(balancer, "backends")
    ] == [
        (["b2"], [], ["b2"]),
        ([], ["b2"], []),
    ]


def test_a_vip_outside_every_subnet_is_warned_of_and_taken(network: Topology, place: Place) -> None:
    """It is the commonest typo, and what a VIP that is routed here looks like."""
    config = place.config(toml(network).replace(network.vip, "10.88.0.100"))
    done = run(network.balancer, place, "up", "-c", config, "--dry-run")
    assert "; outside of 10.77.0.0/24: needs a route here" in done.stdout
    balancer = Up(network.balancer, place, "-c", config).wait_ready()
    balancer.wait_for(lambda: "more: l4raw explain L4R-142" in balancer.err, "the warning")
    balancer.stop()
    assert (
        balancer.err.count("warning L4R-142: the VIP 10.88.0.100 is in no subnet of eth0: 10.77.0.0/24") == 1
    )

    balancer = Up(network.balancer, place, "--json", "-c", config).wait_ready()
    balancer.wait_for(lambda: events(balancer, "warning"), "the warning")
    balancer.stop()
    assert [event["code"] for event in events(balancer, "warning")] == ["L4R-142"]


def test_the_right_vip_is_not(network: Topology, place: Place) -> None:
    balancer = Up(network.balancer, place, "-c", place.config(toml(network))).wait_ready()
    balancer.stop()
    assert "L4R-142" not in balancer.err
