"""`check` in the file: what is taken, what a service has that says nothing, what is refused and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4raw.control.checks import AT_VIP, DEFAULT, Check, check_of, describe, targets
from l4raw.control.config import parse
from l4raw.control.errors import ConfigErrors
from l4raw.control.settings import Config
from l4raw.core.model import Mode
from l4raw.core.tables import Policy, compile_policy
from tests.tables import SOURCES, ip

TOML = """\
[lb]
interfaces = ["eth1", "eth2"]
[[service]]
name = "web"
vip = "10.77.0.100:{vip}"
mode = "{mode}"
backends = [{{ name = "b1", address = "10.77.0.11"{port} }}, {{ name = "b2", address = "10.77.0.12" }}]
{check}
"""


def read(check: str = "", vip: str = "80/tcp", mode: str = "nat", port: int = 0) -> Config:
    text = TOML.format(
        vip=vip, mode=mode, port=f", port = {port}" if port else "", check=check and f"check = {check}"
    )
    return parse(text, Path("l4raw.toml")).config


def policy(config: Config) -> Policy:
    hops = {b.address: (1, 1) for service in config.services for b in service.backends}
    return compile_policy(config.services, hops, b"seed", sources=SOURCES)


def asked(config: Config) -> list[tuple[str, bytes, int]]:
    return [(each.backend, each.asked, each.port) for each in targets(policy(config), config.checks)]


ONE, TWO, VIP = ip("10.77.0.11"), ip("10.77.0.12"), ip("10.77.0.100")


def test_all_keys() -> None:
    config = read('{ type = "tcp", port = 8080, interval = "5s", timeout = "500ms", rise = 1, fall = 9 }')
    assert config.checks == {"web": Check("tcp", 8080, 5000, 500, 1, 9)}


def test_what_is_not_said_is_as_the_design_has_it() -> None:
    assert read("{ }").checks["web"] == DEFAULT == Check("tcp", 0, 2_000, 1_000, 2, 3)


def test_a_short_interval_has_a_short_timeout() -> None:
    assert read('{ interval = "500ms" }').checks["web"].timeout == 500
    assert read('{ interval = "500ms", timeout = "500ms" }').checks["web"].timeout == 500


def test_without_check_tcp_is_checked_and_udp_is_not() -> None:
    config = read()
    assert config.checks == {}
    assert check_of(config.services[0], None) == DEFAULT
    assert check_of(read(vip="53/udp").services[0], None) is None
    assert asked(read(vip="53/udp")) == []


def test_nat_asks_the_backend_at_its_own_port() -> None:
    assert asked(read(port=8080)) == [("b1", ONE, 8080), ("b2", TWO, 80)]


@pytest.mark.parametrize("mode", sorted(AT_VIP))
def test_dsr_asks_the_vip_and_through_a_tunnel_where_clients_come_through_one(mode: Mode) -> None:
    config = read(mode=mode)
    assert asked(config) == [("b1", VIP, 80), ("b2", VIP, 80)]
    found = list(targets(policy(config), {}))
    assert all(each.at_vip for each in found)
    sources = [each.tunnel and each.tunnel[1].source for each in found]
    assert sources == [SOURCES[each.address] if mode.is_tunnel else None for each in found]
    assert not any(each.at_vip or each.tunnel for each in targets(policy(read()), {}))


@pytest.mark.parametrize("mode", sorted(set(Mode) - {Mode.FULLNAT}))
def test_a_mode_is_checked_as_it_is_told(mode: Mode) -> None:
    assert read("{ fall = 1 }", mode=mode).checks["web"].fall == 1
    assert asked(read('{ type = "none" }', mode=mode)) == []


def test_another_port_for_all() -> None:
    assert asked(read("{ port = 9000 }", port=8080)) == [("b1", ONE, 9000), ("b2", TWO, 9000)]
    assert asked(read("{ port = 53 }", vip="53/udp", mode="dsr-l2")) == [("b1", VIP, 53), ("b2", VIP, 53)]


def test_every_port_has_none_to_check_but_a_backend_may_have_one() -> None:
    assert asked(read(vip="0/tcp")) == []
    assert asked(read(vip="0/tcp", port=8080)) == [("b1", ONE, 8080)]
    assert asked(read("{ port = 22 }", vip="0/tcp")) == [("b1", ONE, 22), ("b2", TWO, 22)]


def test_none_is_no_check() -> None:
    assert asked(read('{ type = "none" }')) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (read(), "TCP handshake with each backend, every 2s, timeout 1s; down after 3 failures, up after 2"),
        (read('{ port = 81, timeout = "1500ms" }'), "TCP handshake with each backend, port 81, every 2s,"),
        (read(mode="dsr-l2"), "TCP handshake with 10.77.0.100:80 at each backend's MAC address, every 2s"),
        (read(mode="dsr-gue"), "TCP handshake with 10.77.0.100:80 through each backend's tunnel, every 2s"),
        (read('{ type = "none" }'), "none, as `check` says"),
        (read(vip="53/udp"), "none: UDP has no handshake"),
        (read(vip="0/tcp"), "none: port 0 is every port, and `check` names none"),
    ],
)
def test_in_words(config: Config, words: str) -> None:
    (service,) = config.services
    assert describe(service, config.checks.get("web")).startswith(words)


@pytest.mark.parametrize(
    ("check", "vip", "code", "what"),
    [
        ("false", "80/tcp", "L4R-105", 'service "web": check is a boolean; a table is expected'),
        ('{ type = "http" }', "80/tcp", "L4R-112", '"http" is unknown'),
        ('{ intervall = "1s" }', "80/tcp", "L4R-108", 'unknown key "intervall"; did you mean "interval"?'),
        ('{ interval = "99ms" }', "80/tcp", "L4R-107", '"99ms" is not in 100ms to 1h'),
        ('{ timeout = "9ms" }', "80/tcp", "L4R-107", '"9ms" is not in 10ms to 1m'),
        ("{ rise = 0 }", "80/tcp", "L4R-107", "rise 0 is not in 1 to 100"),
        ("{ fall = 101 }", "80/tcp", "L4R-107", "fall 101 is not in 1 to 100"),
        ("{ port = 0 }", "80/tcp", "L4R-111", "port 0 is not in 1 to 65535"),
        ("{ fall = 1 }", "53/udp", "L4R-170", "its protocol is UDP, which has no handshake"),
        ("{ fall = 1 }", "0/tcp", "L4R-170", "port 0 is every port: there is none to check"),
        ("{}", "53/udp", "L4R-170", "its protocol is UDP, which has no handshake"),
        ("{}", "0/tcp", "L4R-170", "port 0 is every port: there is none to check"),
        ('{ timeout = "3s" }', "80/tcp", "L4R-171", "timeout 3s is longer than interval 2s"),
        ('{ timeout = "1s", interval = "500ms" }', "80/tcp", "L4R-171", "timeout 1s is longer than interval"),
        ('{ type = "none", rise = 1 }', "80/tcp", "L4R-172", 'type "none", so rise means nothing'),
    ],
)
def test_what_is_refused(check: str, vip: str, code: str, what: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(check, vip)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert what in problem.what
    line = TOML.splitlines().index("{check}") + 1
    assert (problem.where or "").startswith(f"l4raw.toml:{line}:")


def test_a_boolean_is_told_how_to_say_it() -> None:
    with pytest.raises(ConfigErrors) as caught:
        read("false")
    assert caught.value.problems[0].fix == 'for no check: check = { type = "none" }'
