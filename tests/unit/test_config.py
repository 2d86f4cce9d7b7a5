"""Configuration files: what is accepted, and what each mistake is told."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from l4raw.control.config import Loaded, one_arm_nat_warnings, parse
from l4raw.control.errors import ConfigErrors, Problem
from l4raw.control.settings import LbConfig
from l4raw.core.model import Backend, Mode, Scheduler, Service
from l4raw.core.timeouts import Timeouts

GOOD = """\
[lb]
interfaces = ["eth1", "eth2"]

[[service]]
name = "web"
vip = "10.77.0.100:80/tcp"
mode = "nat"
backends = [
  { name = "b1", address = "10.77.0.11" },
  { name = "b2", address = "10.77.0.12", port = 8080, weight = 2 },
]
"""


def changed(old: str, new: str) -> str:
    """GOOD with one difference."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def read(text: str) -> Loaded:
    return parse(text, Path("l4raw.toml"))


def problems(text: str) -> list[Problem]:
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    assert caught.value.exit_code == 3
    return list(caught.value.problems)


def packed(text: str) -> bytes:
    return IPv4Address(text).packed


def test_a_good_file_becomes_the_model() -> None:
    loaded = read(GOOD)
    assert loaded.config.lb == LbConfig(("eth1", "eth2"), "auto", 64 << 20, None, "learned")
    backends = (Backend("b1", packed("10.77.0.11")), Backend("b2", packed("10.77.0.12"), 8080, 2))
    assert loaded.config.services == (
        Service("web", packed("10.77.0.100"), 80, 6, Mode.NAT, Scheduler.MAGLEV, backends),
    )
    assert loaded.config.timeouts == {"web": Timeouts(60_000, 900_000, 120_000, 300_000)}
    assert loaded.warnings == ()
    assert loaded.source.where("service", 0, "vip") == "l4raw.toml:6:7"


def test_every_key_is_read() -> None:
    text = """\
[lb]
interfaces = ["eth1"]
dataplane = "raw"
flow_memory = "64KiB"
ring_seed = "s"
client_next_hop = "learned"
[[service]]
name = "dns"
vip = "10.77.0.100:0/udp"
mode = "dsr-l2"
scheduler = "modulo"
timeouts = { syn = "500ms", established = "2h", fin = "3s", udp = "4m" }
backends = [{ name = "b1", address = "10.77.0.11", weight = 1 }]
"""
    loaded = read(text).config
    assert loaded.lb == LbConfig(("eth1",), "raw", 65_536, "s", "learned")
    assert loaded.timeouts == {"dns": Timeouts(500, 7_200_000, 3_000, 240_000)}
    service = loaded.services[0]
    assert (service.port, service.protocol, service.mode, service.scheduler) == (0, 17, "dsr-l2", "modulo")


def service(name: str, vip: str, rest: str = "", backends: str = "") -> str:
    backends = backends or '{ name = "b1", address = "10.77.0.11" }'
    return f'[[service]]\nname = "{name}"\nvip = "{vip}"\nmode = "dsr-l2"\n{rest}\nbackends = [{backends}]\n'


LB = '[lb]\ninterfaces = ["eth1"]\n'


def test_two_services_may_differ_in_port_or_protocol_only() -> None:
    text = LB + "".join(
        service(f"s{index}", f"10.77.0.100:{rest}")
        for index, rest in enumerate(("80/tcp", "80/udp", "81/tcp", "0/tcp"))
    )
    assert len(read(text).config.services) == 4


def test_a_repeated_vip_and_name_point_at_the_first() -> None:
    text = LB + service("web", "10.77.0.100:80/tcp") + service("web", "10.77.0.100:80/tcp")
    name, vip = problems(text)
    assert (name.code, name.where) == ("L4R-130", "l4raw.toml:10:8")
    assert name.what.endswith("see line 4")
    assert (vip.code, vip.where) == ("L4R-131", "l4raw.toml:11:7")
    assert vip.what.endswith("see line 5")


@pytest.mark.parametrize("line", ["", "backends = []"])
def test_no_backends(line: str) -> None:
    text = LB + f'[[service]]\nname = "web"\nvip = "10.77.0.100:80/tcp"\nmode = "nat"\n{line}\n'
    (problem,) = problems(text)
    assert problem.code == "L4R-134"
    assert 'service "web"' in problem.what


@pytest.mark.parametrize("scheduler", Scheduler)
def test_every_weight_zero(scheduler: str) -> None:
    backends = '{ name = "b1", address = "10.77.0.11", weight = 0 }'
    text = service("web", "10.77.0.100:80/tcp", f'scheduler = "{scheduler}"', backends)
    (problem,) = problems(LB + text)
    assert problem.code == "L4R-137"


@pytest.mark.parametrize("scheduler", Scheduler)
def test_a_weight_of_zero_or_one_is_right_with_every_scheduler(scheduler: str) -> None:
    backends = ", ".join(
        f'{{ name = "b{weight}", address = "10.77.0.1{weight}", weight = {weight} }}' for weight in (0, 1)
    )
    config = read(LB + service("web", "10.77.0.100:80/tcp", f'scheduler = "{scheduler}"', backends)).config
    assert [backend.weight for backend in config.services[0].backends] == [0, 1]


def test_a_sequence_of_wrr_that_is_too_long() -> None:
    """Weights without a common divisor that add up to more than a ring may have slots."""

    def text(count: int, scheduler: str) -> str:
        backends = ", ".join(
            f'{{ name = "b{i}", address = "10.78.{i // 250}.{i % 250 + 1}", weight = {100 - i % 2} }}'
            for i in range(count)
        )
        return LB + service("web", "10.77.0.100:80/tcp", f'scheduler = "{scheduler}"', backends)

    read(text(658, "wrr"))
    read(text(659, "maglev"))
    (problem,) = problems(text(659, "wrr"))
    assert problem.code == "L4R-107"
    assert "the weights of wrr add up to 65571 turns; at most 65537 are possible" in problem.what


def test_an_empty_file_names_both_tables() -> None:
    assert [problem.what for problem in problems("")] == ["there is no table [lb]", "there is no [[service]]"]


def test_too_many_services() -> None:
    (problem,) = problems(LB + "".join(service(f"s{n}", f"10.77.0.100:{n}/tcp") for n in range(1024)))
    assert problem.code == "L4R-107"


def test_five_mistakes_of_shape_and_meaning_are_reported_together_in_order() -> None:
    text = """\
[lb]
interfaces = ["eth1"]
dataplan = "raw"
[[service]]
name = "a"
vip = "10.77.0.100:70000/tcp"
mode = "drs-l2"
backends = [{ name = "b1", address = "10.77.0.256" }]
[[service]]
name = "b"
vip = "10.77.0.101:80/tcp"
mode = "nat"
backends = []
[[service]]
name = "c"
vip = "10.77.0.101:80/tcp"
mode = "nat"
backends = [{ name = "b1", address = "10.77.0.11" }]
"""
    found = [(problem.code, problem.where) for problem in problems(text)]
    assert found == [
        ("L4R-108", "l4raw.toml:3:1"),
        ("L4R-111", "l4raw.toml:6:7"),
        ("L4R-112", "l4raw.toml:7:8"),
        ("L4R-109", "l4raw.toml:8:38"),
        ("L4R-134", "l4raw.toml:13:12"),
        ("L4R-131", "l4raw.toml:16:7"),
    ]


def test_the_excerpt_has_a_caret_below_the_place() -> None:
    (problem,) = problems(changed('"nat"', '"natt"'))
    assert problem.excerpt == '   7 | mode = "natt"\n     |        ^'


def test_a_long_line_is_cut_around_the_place() -> None:
    many = ", ".join(f'{{ name = "b{n}", address = "10.77.0.{n}" }}' for n in range(11, 30))
    text = LB + service("web", "10.77.0.100:80/tcp", backends=many.replace('"10.77.0.20"', '"nowhere"'))
    (problem,) = problems(text)
    line, caret = (problem.excerpt or "").split("\n")
    assert line[caret.index("^") :].startswith('"nowhere"')
    assert len(line) < 120


# One-arm nat


ONE_ARM = changed('["eth1", "eth2"]', '["eth1"]')


def test_one_arm_nat_warns_and_is_accepted() -> None:
    (warning,) = read(ONE_ARM).warnings
    assert (warning.code, warning.severity, warning.where) == ("L4R-141", "warning", "l4raw.toml:7:8")
    assert 'service "web"' in warning.what
    assert "fullnat" in warning.fix


def test_other_arms_and_modes_do_not_warn() -> None:
    assert not read(GOOD).warnings
    assert not read(LB + service("web", "10.77.0.100:80/tcp")).warnings


@pytest.mark.parametrize(
    ("subnets", "named"),
    [
        (["10.77.0.0/24"], "10.77.0.0/24"),
        (["192.0.2.0/24", "10.77.0.0/28"], "10.77.0.0/28"),
        (["192.0.2.0/24"], None),
        ([], None),
    ],
)
def test_with_the_subnets_known_only_backends_inside_count(subnets: list[str], named: str | None) -> None:
    warnings = one_arm_nat_warnings(read(ONE_ARM).config, [IPv4Network(subnet) for subnet in subnets])
    assert [named in warning.what for warning in warnings if named] == ([True] if named else [])
    assert len(warnings) == (1 if named else 0)
