"""What is said of a SNAT pool that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4raw.control.advice import snat_warnings
from l4raw.control.config import parse
from l4raw.control.errors import ConfigErrors
from l4raw.control.netlink import Interface
from l4raw.core.model import Mode, Snat
from tests.tables import ip

TEXT = """\
[lb]
interfaces = ["eth1"]

[[service]]
name = "web"
vip = "10.77.0.100:80/tcp"
mode = "fullnat"
snat = [{ address = "10.77.1.5", ports = "1024-2000" }, { address = "10.77.1.6" }]
backends = [{ name = "b1", address = "10.77.0.11", port = 8080 }]
"""
FIRST = '{ address = "10.77.1.5", ports = "1024-2000" }'


def parsed(text: str) -> tuple[Snat, ...]:
    return parse(text, Path("l4raw.toml")).config.services[0].snat


def test_a_pool_is_ranges_of_ports() -> None:
    service = parse(TEXT, Path("l4raw.toml")).config.services[0]
    assert service.mode is Mode.FULLNAT
    assert service.snat == (Snat(ip("10.77.1.5"), 1024, 2000), Snat(ip("10.77.1.6"), 1024, 65_535))
    assert list(map(str, service.snat)) == ["10.77.1.5:1024-2000", "10.77.1.6:1024-65535"]
    assert parsed(TEXT.replace("1024-2000", "5000"))[0] == Snat(ip("10.77.1.5"), 5000, 5000)


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "words"),
    [
        ("1024-2000", "2000-1024", "L4R-116", "8:42", 'ports "2000-1024" ends before it begins'),
        ("1024-2000", "any", "L4R-116", "8:42", 'ports "any" is not FIRST-LAST'),
        ("1024-2000", "0-9", "L4R-111", "8:42", "0 is not in 1 to 65535"),
        ("1024-2000", "1-65536", "L4R-111", "8:42", "65536 is not in 1 to 65535"),
        ("10.77.1.5", "10.77.1.500", "L4R-109", "8:21", '"10.77.1.500" is not an address'),
        ("10.77.1.5", "127.0.0.1", "L4R-139", "8:21", "is a loopback address"),
        ("ports =", "port =", "L4R-108", "8:34", 'unknown key "port"; did you mean "ports"?'),
        ("10.77.1.5", "10.77.0.100", "L4R-152", "8:21", 'is the VIP of service "web"; see line 6'),
        ("10.77.1.5", "10.77.0.11", "L4R-152", "8:21", 'is the address of service "web": backend "b1"'),
        ("10.77.1.6", "10.77.1.5", "L4R-153", "8:69", "have ports 1024-2000 of one address; see line 8"),
        ("10.77.1.5", "2001:db8::5", "L4R-154", "8:21", "a SNAT address is IPv6, the VIP is IPv4"),
        ('"fullnat"', '"nat"', "L4R-151", "8:1", "mode nat does not rewrite the source"),
        ('"fullnat"', '"dsr-l2"', "L4R-151", "8:1", "mode dsr-l2 does not rewrite the source"),
        ("snat = [", "snat = 5 #", "L4R-105", "8:8", "snat is a whole number; a list is expected"),
        (FIRST, ", ".join([FIRST] * 16), "L4R-107", "8:8", "snat has 17 ranges; at most 16 are possible"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    old: str, new: str, code: str, place: str, words: str
) -> None:
    with pytest.raises(ConfigErrors) as refused:
        parse(TEXT.replace(old, new), Path("l4raw.toml"))
    found = {problem.code: problem for problem in refused.value.problems}
    assert code in found, refused.value.problems
    assert words in found[code].what
    assert found[code].where == f"l4raw.toml:{place}"


def test_two_services_may_have_the_same_ports() -> None:
    other = TEXT[TEXT.index("[[service]]") :].replace("web", "other").replace(":80/", ":81/")
    assert len(parse(TEXT + other, Path("l4raw.toml")).config.services) == 2


def test_fullnat_without_a_pool_is_refused() -> None:
    lines = [line for line in TEXT.splitlines() if not line.startswith("snat")]
    with pytest.raises(ConfigErrors) as refused:
        parse("\n".join(lines), Path("l4raw.toml"))
    assert [problem.code for problem in refused.value.problems] == ["L4R-150"]


def test_an_address_out_of_the_backends_subnet_is_warned_of() -> None:
    config = parse(TEXT, Path("l4raw.toml")).config
    outer, inner = (
        Interface(f"eth{n}", n, bytes(6), True, 1500, ((ip(f"10.77.{n}.2"), 24),)) for n in (0, 1)
    )
    assert snat_warnings(config, [outer, inner]) == []
    warned = snat_warnings(config, [outer])
    assert [problem.code for problem in warned] == ["L4R-155", "L4R-155"]
    assert "10.77.1.5 is in no subnet of eth0: 10.77.0.0/24" in warned[0].what
