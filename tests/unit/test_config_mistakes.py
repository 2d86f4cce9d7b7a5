"""One mistake in a good file: its code, its place, its words."""

from __future__ import annotations

from pathlib import Path

import pytest

from l4raw.control.config import parse
from l4raw.control.errors import ConfigErrors, Problem
from l4raw.core.model import Full, Service, Tunnel

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


def problems(text: str) -> list[Problem]:
    with pytest.raises(ConfigErrors) as caught:
        parse(text, Path("l4raw.toml"))
    assert caught.value.exit_code == 3
    return list(caught.value.problems)


MISTAKES = [
    # what stands there, what stands there instead, code, line:column, words of the message
    ('interfaces = ["eth1", "eth2"]', "", "L4R-104", "1:1", "[lb]: interfaces is missing"),
    ('interfaces = ["eth1", "eth2"]', "interfaces = []", "L4R-106", "2:14", "has 0 names"),
    ('["eth1", "eth2"]', '["a", "b", "c"]', "L4R-106", "2:14", "has 3 names"),
    ('["eth1", "eth2"]', '"eth1"', "L4R-105", "2:14", "is a string; a list of one or two names"),
    ('["eth1", "eth2"]', '["eth1", 2]', "L4R-105", "2:23", "interfaces is a whole number; a string"),
    ('["eth1", "eth2"]', '["eth1", "eth1"]', "L4R-140", "2:23", '"eth1" is named twice'),
    ('"eth2"', '"a/b"', "L4R-115", "2:23", '"a/b" cannot be the name of an interface'),
    ('"eth2"', '"ééééé678901"', "L4R-115", "2:23", "cannot be the name"),
    ('"eth2"', '"a234567890123456"', "L4R-115", "2:23", "cannot be the name"),
    ("[lb]", "[lb]\ndataplane = 'rwa'", "L4R-112", "2:13", 'dataplane "rwa" is unknown; did you mean "raw"?'),
    ("[lb]", "[lb]\nclient_next_hop = 'route'", "L4R-113", "2:19", '"route" is not in this version'),
    ("[lb]", "[lb]\nflow_memory = '64MB'", "L4R-114", "2:15", '"64MB" is not a size'),
    ("[lb]", "[lb]\nflow_memory = 64", "L4R-105", "2:15", "is a whole number; a string is expected"),
    ("[lb]", "[lb]\nflow_memory = '63KiB'", "L4R-107", "2:15", '"63KiB" is not in 64KiB to 64GiB'),
    ("[lb]", "[lb]\nflow_memory = '65GiB'", "L4R-107", "2:15", "not in"),
    ("[lb]", "[lb]\nring_seed = ''", "L4R-107", "2:13", "ring_seed is empty"),
    (
        "[lb]",
        "[lb]\ninterface = 'eth1'",
        "L4R-108",
        "2:1",
        'unknown key "interface"; did you mean "interfaces"?',
    ),
    ("[lb]", "zzz = 1\n[lb]", "L4R-108", "1:1", 'unknown key "zzz"'),
    ('name = "web"\n', "", "L4R-104", "4:1", "service #1: name is missing"),
    ('"web"', '"w b"', "L4R-115", "5:8", '"w b" is not a name'),
    ('vip = "10.77.0.100:80/tcp"\n', "", "L4R-104", "4:1", 'service "web": vip is missing'),
    ("10.77.0.100:80/tcp", "10.77.0.100", "L4R-110", "6:7", "is not ADDRESS:PORT/PROTOCOL"),
    ("10.77.0.100:80/tcp", "10.77.0.100:http/tcp", "L4R-110", "6:7", "is not ADDRESS:PORT/PROTOCOL"),
    ("10.77.0.100:80/tcp", "10.77.0.100:70000/tcp", "L4R-111", "6:7", "port 70000 is above 65535"),
    (
        "10.77.0.100:80/tcp",
        "10.77.0.100:80/tpc",
        "L4R-112",
        "6:7",
        'protocol "tpc" is unknown; did you mean "tcp"?',
    ),
    ("10.77.0.100:80/tcp", "10.77.0.300:80/tcp", "L4R-109", "6:7", '"10.77.0.300" is not an address'),
    ("10.77.0.100:80/tcp", "2001:db8::100:443/tcp", "L4R-110", "6:7", "an IPv6 address without brackets"),
    ("10.77.0.100:80/tcp", "224.0.0.1:80/tcp", "L4R-139", "6:7", "is a multicast address"),
    ("10.77.0.100:80/tcp", "0.0.0.0:80/tcp", "L4R-139", "6:7", "means this network"),
    ("10.77.0.100:80/tcp", "255.255.255.255:80/tcp", "L4R-139", "6:7", "is the broadcast address"),
    ("10.77.0.100:80/tcp", "10.77.0.11:80/tcp", "L4R-138", "9:28", 'its address is the VIP of service "web"'),
    ('"nat"', '"natt"', "L4R-112", "7:8", 'mode "natt" is unknown; did you mean "nat"?'),
    ('"nat"', '"proxy"', "L4R-113", "7:8", '"proxy" is not in this version; it has dsr-l2, dsr-ipip'),
    ('"nat"', '"fullnat"', "L4R-150", "7:8", 'service "web": mode fullnat needs snat'),
    (
        '"nat"',
        '"nat"\nsnat = [{ address = "10.77.1.5" }]',
        "L4R-151",
        "8:1",
        "mode nat does not rewrite the source",
    ),
    ('"nat"', '"dsr-ipip"', "L4R-135", "10:42", 'backend "b2": dsr-ipip cannot change the port'),
    ('"nat"', '"dsr-gue"', "L4R-135", "10:42", 'backend "b2": dsr-gue cannot change the port'),
    ('"nat"', '"nat"\ntunnel = { ttl = 9 }', "L4R-144", "8:1", 'service "web": nat sends through no tunnel'),
    ('"nat"', '"nat"\ntunnel = 5', "L4R-105", "8:10", "tunnel is a whole number; a table is expected"),
    ('"nat"', "80", "L4R-105", "7:8", "mode is a whole number; a string is expected"),
    ('"nat"', '"dsr-l2"', "L4R-135", "10:42", 'backend "b2": dsr-l2 cannot change the port'),
    ('"nat"', '"nat"\nscheduler = "rr"', "L4R-136", "11:55", "scheduler rr has no weights"),
    ('"nat"', '"nat"\nscheduler = "modulo"', "L4R-136", "11:55", "scheduler modulo has no weights"),
    ('"nat"', '"nat"\nscheduler = "lc"', "L4R-136", "11:55", "no weights but 0 and 1; wlc has"),
    ('"nat"', '"nat"\nscheduler = "sticky"', "L4R-112", "8:13", 'scheduler "sticky" is unknown'),
    ('"nat"', '"nat"\nscheduler = "magelv"', "L4R-112", "8:13", 'did you mean "maglev"?'),
    (
        '"nat"',
        '"nat"\nal_down = "drop"',
        "L4R-108",
        "8:1",
        'did you mean "all_down", which is not in this version?',
    ),
    ('"nat"', '"nat"\ntimeouts = { syn = "60" }', "L4R-114", "8:20", '"60" is not a duration'),
    ('"nat"', '"nat"\ntimeouts = { tcp = "60s" }', "L4R-108", "8:14", 'unknown key "tcp"'),
    ('"nat"', '"nat"\ntimeouts = { udp = "0s" }', "L4R-107", "8:20", '"0s" is not in 100ms to 168h'),
    ('"nat"', '"nat"\naffinity = "0s"', "L4R-107", "8:12", '"0s" is not in 100ms to 168h'),
    ('"nat"', '"nat"\naffinity = 300', "L4R-105", "8:12", "affinity is a whole number; a string is expected"),
    ('"nat"', '"nat"\ntimeouts = 5', "L4R-105", "8:12", "timeouts is a whole number; a table is expected"),
    ('"nat"', '"nat"\nmss_clamp = 100', "L4R-107", "8:13", "mss_clamp 100 is not in 536 to 65495"),
    ('"nat"', '"nat"\nmss_clamp = "1400"', "L4R-105", "8:13", "a whole number is expected"),
    ("80/tcp", '80/udp"\nmss_clamp = 1400 # "', "L4R-161", "7:1", "udp has no MSS; see line 6"),
    ('"nat"', '"nat"\nlimits = { flows = 0 }', "L4R-107", "8:20", "flows 0 is not in 1 to 2147483647"),
    ('"nat"', '"nat"\nlimits = { new_per_s = 4000001 }', "L4R-107", "8:24", "is not in 1 to 4000000"),
    ('"nat"', '"nat"\nlimits = { maxconn = 1 }', "L4R-108", "8:12", 'unknown key "maxconn"'),
    ('"nat"', '"nat"\nfull = "drop"', "L4R-112", "8:8", 'full "drop" is unknown'),
    ('"nat"', '"nat"\nfull = "stateless"', "L4R-165", "8:8", "but the mode is nat; see line 7"),
    ('"nat"', '"nat"\nflows = "track-changes"', "L4R-168", "8:9", "but the mode is nat; see line 7"),
    ('"nat"', '"nat"\nflows = "none"', "L4R-112", "8:9", '"none"'),
    (
        '"nat"',
        '"nat"\nlimits = { flows = 5, client_flows = 6 }',
        "L4R-164",
        "8:38",
        "client_flows is 6, more than flows, which is 5",
    ),
    ('"nat"', '"nat"\nacl = ["10.0.0.0/8"]', "L4R-105", "8:7", "acl is a list; a table is expected"),
    ('"nat"', '"nat"\nacl = { alow = [] }', "L4R-108", "8:9", 'did you mean "allow"?'),
    ('"nat"', '"nat"\nacl = { deny = ["10.0.0.1/8"] }', "L4R-160", "8:17", "(has host bits set)"),
    ('"nat"', '"nat"\nacl = { deny = ["ten"] }', "L4R-160", "8:17", '"ten" is not a network'),
    ('"nat"', '"nat"\nacl = { deny = ["::/0"] }', "L4R-162", "8:17", "which is IPv6; the VIP is IPv4"),
    ('"nat"', '"nat"\nacl = { allow = [] }', "L4R-167", "8:17", "acl: allow is empty"),
    (
        '"nat"',
        '"nat"\nacl = { allow = ["10.0.0.1"], deny = ["10.0.0.1/32"] }',
        "L4R-163",
        "8:39",
        'acl has "10.0.0.1/32" twice; see line 8',
    ),
    ('"b1", address = "10.77.0.11"', '"b1"', "L4R-104", "9:3", 'backend "b1": address is missing'),
    ("10.77.0.11", "10.77.0.011", "L4R-109", "9:28", "is not an address"),
    ("10.77.0.11", "10.77.0.11:80", "L4R-109", "9:28", '"10.77.0.11:80" is not an address'),
    ("10.77.0.11", "10.77.0.0/24", "L4R-109", "9:28", "is a network, not an address"),
    ("10.77.0.11", "fe80::1", "L4R-139", "9:28", "a link-local address"),
    ("10.77.0.11", "2001:db8::1", "L4R-143", "9:28", "its address is IPv6, the VIP is IPv4"),
    ("10.77.0.11", "127.0.0.1", "L4R-139", "9:28", "is a loopback address"),
    ("port = 8080", "port = 70000", "L4R-111", "10:49", "port 70000 is not in 1 to 65535"),
    ("port = 8080", "port = 0", "L4R-111", "10:49", "port 0 is not in 1 to 65535"),
    ("port = 8080", 'port = "80"', "L4R-105", "10:49", "port is a string; a whole number is expected"),
    ("weight = 2", "weight = 101", "L4R-107", "10:64", "weight 101 is not in 0 to 100"),
    ("weight = 2", "weight = -1", "L4R-107", "10:64", "weight -1 is not in 0 to 100"),
    ("weight = 2", "weight = 1.5", "L4R-105", "10:64", "weight is a float"),
    ("weight = 2", "weight = true", "L4R-105", "10:64", "weight is a boolean"),
    (
        "weight = 2",
        "wieght = 2",
        "L4R-108",
        "10:55",
        'backend "b2": unknown key "wieght"; did you mean "weight"?',
    ),
    ("weight = 2", "backup = true", "L4R-113", "10:55", 'key "backup" is not in this version'),
    ('"b2"', '"b1"', "L4R-132", "10:12", 'two backends are named "b1"; see line 9'),
    (
        '10.77.0.12", port = 8080',
        '10.77.0.11", port = 80',
        "L4R-133",
        "10:28",
        'are also those of backend "b1"; see line 9',
    ),
    ("[[service]]", "[service]", "L4R-105", "4:1", "service is one table; a list of tables is expected"),
]


@pytest.mark.parametrize(("old", "new", "code", "place", "words"), MISTAKES)
def test_one_mistake_is_one_problem(old: str, new: str, code: str, place: str, words: str) -> None:
    (problem,) = problems(changed(old, new))
    assert (problem.code, problem.where) == (code, f"l4raw.toml:{place}")
    assert words in problem.what


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"nat"', '"nat"\nscheduler = "rr"', "wrr"),
        ('"nat"', '"nat"\nscheduler = "sticky"', "maglev, rr, wrr, lc, wlc, sh, hrw, modulo"),
        ('10.77.0.11"', '10.77.0.11:80"', 'address = "10.77.0.11" and port as a key'),
        ("[[service]]", "[service]", "two brackets"),
        ('"nat"', '"proxy"', "docs/supported.md"),
        ('"nat"', '"nut-at-all"', "dsr-l2, dsr-ipip, dsr-gue, nat"),
    ],
)
def test_the_fix_fits_the_mistake(old: str, new: str, words: str) -> None:
    (problem,) = problems(changed(old, new))
    assert words in problem.fix


def test_without_an_entry_a_turn_cannot_be_found_again() -> None:
    stateless = GOOD.replace('"nat"', '"dsr-l2"\nscheduler = "wrr"\nfull = "stateless"').replace(
        "port = 8080, ", ""
    )
    (problem,) = problems(stateless)
    assert (problem.code, problem.where) == ("L4R-165", "l4raw.toml:9:8")
    assert "but the scheduler is wrr; see line 8" in problem.what
    by_hash = stateless.replace("wrr", "hrw")
    assert read(by_hash).full is Full.STATELESS
    (problem,) = problems(by_hash.replace("full =", 'affinity = "1m"\nfull ='))
    assert (problem.code, problem.where) == ("L4R-165", "l4raw.toml:10:8")
    assert "affinity keeps each client's choice; see line 9" in problem.what
    (problem,) = problems(by_hash.replace("full =", "limits = { flows = 5 }\nfull ="))
    assert (problem.code, problem.where) == ("L4R-165", "l4raw.toml:10:8")
    assert "limits count flows; see line 9" in problem.what


def test_a_living_flows_port_is_not_given_away() -> None:
    pool = '"fullnat"\nsnat = [{ address = "10.77.0.5" }]\nfull = "evict-oldest"'
    (problem,) = problems(changed('"nat"', pool))
    assert (problem.code, problem.where) == ("L4R-166", "l4raw.toml:9:8")
    assert "but the mode is fullnat; see line 7" in problem.what


def read(text: str) -> Service:
    """The one service of a file that is right."""
    (service,) = parse(text, Path("l4raw.toml")).config.services
    return service


TUNNELLED = GOOD.replace(
    '"nat"', '"dsr-gue"\ntunnel = { source = "10.77.0.2", port = 6081, ttl = 9 }'
).replace("port = 8080, ", "")


def test_a_tunnel_is_as_it_is_written_and_may_be_of_two_ip_versions() -> None:
    assert read(TUNNELLED).tunnel == Tunnel(bytes([10, 77, 0, 2]), 6081, 9)
    service = read(TUNNELLED.replace("10.77.0.100", "[2001:db8::1]"))
    assert len(service.vip) == 16 and service.mode.is_tunnel
    plain = TUNNELLED.replace('source = "10.77.0.2", port = 6081, ttl = 9', "")
    assert read(plain).tunnel == Tunnel(None, 6080, 64)
    read(plain.replace("10.77.0.11", "2001:db8::11"))


@pytest.mark.parametrize(
    ("old", "new", "code", "place", "words"),
    [
        ('"dsr-gue"', '"dsr-ipip"', "L4R-144", "8:34", "dsr-ipip has no port: there is no UDP header"),
        ("10.77.0.2", "10.77.0.100", "L4R-145", "8:21", 'source 10.77.0.100 is the VIP of service "web"'),
        ("10.77.0.2", "10.77.0.11", "L4R-145", "8:21", 'is the address of backend "b1"; see line 10'),
        ("10.77.0.2", "2001:db8::2", "L4R-145", "8:21", 'is IPv6, the address of backend "b1" is IPv4'),
        ("10.77.0.2", "127.0.0.1", "L4R-139", "8:21", "is a loopback address"),
        ("6081", "0", "L4R-111", "8:41", "port 0 is not in 1 to 65535"),
        ("ttl = 9", "ttl = 0", "L4R-107", "8:53", "0 is not in 1 to 255"),
        ("ttl = 9", "tll = 9", "L4R-108", "8:47", 'did you mean "ttl"?'),
    ],
)
def test_one_mistake_in_a_tunnel(old: str, new: str, code: str, place: str, words: str) -> None:
    (problem,) = problems(
        TUNNELLED.replace(old, new, 1)
        if old != "10.77.0.2"
        else TUNNELLED.replace('source = "10.77.0.2"', f'source = "{new}"')
    )
    assert (problem.code, problem.where) == (code, f"l4raw.toml:{place}")
    assert words in problem.what
