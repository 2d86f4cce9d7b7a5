"""Warnings that need to know the host: a VIP that no interface is a neighbour of."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from l4raw.control.advice import vip_warnings
from l4raw.control.balancer import Balancer
from l4raw.control.config import parse
from l4raw.control.netlink import Interface
from l4raw.control.plan import steps
from l4raw.control.settings import Config


def config(*vips: str) -> Config:
    services = "".join(
        f'[[service]]\nname = "s{number}"\nvip = "{vip}"\nmode = "dsr-l2"\n'
        'backends = [{ name = "b1", address = "10.77.0.11" }]\n'
        for number, vip in enumerate(vips)
    )
    return parse(f'[lb]\ninterfaces = ["eth0"]\nflow_memory = "1MiB"\n{services}', Path("l4raw.toml")).config


def interface(*addresses: str) -> Interface:
    pairs = [address.split("/") for address in addresses]
    return Interface("eth0", 1, bytes(6), True, 1500, tuple((socket.inet_aton(a), int(p)) for a, p in pairs))


@pytest.mark.parametrize(
    ("vips", "addresses", "warned"),
    [
        (["10.77.0.100:80/tcp"], ["10.77.0.2/24"], []),
        (["10.77.1.100:80/tcp"], ["10.77.0.2/24"], ["10.77.1.100"]),
        (["10.77.1.100:80/tcp"], ["10.77.0.2/24", "10.77.1.2/24"], []),
        (["10.77.1.100:80/tcp"], ["10.77.0.2/16"], []),
        (["10.77.1.100:80/tcp"], [], []),  # nothing to compare with
        (["10.77.1.9:80/tcp", "10.77.1.9:81/tcp", "10.77.0.9:80/tcp", "10.7.0.9:80/tcp"], ["10.77.0.2/24"],
         ["10.77.1.9", "10.7.0.9"]),
    ],
)  # fmt: skip
def test_a_vip_outside_every_subnet_is_told_once(
    vips: list[str], addresses: list[str], warned: list[str]
) -> None:
    found = vip_warnings(config(*vips), [interface(*addresses)])
    assert [(problem.code, problem.severity) for problem in found] == [("L4R-142", "warning")] * len(warned)
    for problem, vip in zip(found, warned, strict=True):
        assert f"the VIP {vip} is in no subnet of eth0: {'10.77.0.0/24'}" in problem.what


def test_the_warning_names_the_service_and_every_subnet() -> None:
    (problem,) = vip_warnings(config("10.7.0.9:80/tcp"), [interface("10.77.0.2/24", "10.78.0.2/16")])
    assert problem.what == "the VIP 10.7.0.9 is in no subnet of eth0: 10.77.0.0/24, 10.78.0.0/16"
    assert problem.where == 'service "s0"'


def test_the_balancer_keeps_it_for_up_to_tell_and_the_plan_says_it(tmp_path: Path) -> None:
    typo, near = config("10.7.0.9:80/tcp"), interface("10.77.0.2/24")
    balancer = Balancer(typo, [near], "test", tmp_path, b"seed")
    assert [problem.code for problem in balancer.warnings] == ["L4R-142"]
    assert [what for kind, what in steps(typo, [near], "test", tmp_path, tmp_path) if kind == "ARP"] == [
        "10.7.0.9 is at 00:00:00:00:00:00, on eth0; outside of 10.77.0.0/24: needs a route here"
    ]
