"""Access lists: the ranges give what a search for the longest prefix gives."""

from __future__ import annotations

from ipaddress import ip_network
from random import Random

from l4raw.core.acl import EVERYBODY, Ranges, compile_acl
from l4raw.core.model import Acl, Prefix
from tests.tables import ip


def prefix(text: str) -> Prefix:
    network = ip_network(text)
    return network.network_address.packed, network.prefixlen


def acl(allow: str = "", deny: str = "") -> Ranges:
    return compile_acl(Acl(tuple(map(prefix, allow.split())), tuple(map(prefix, deny.split()))))


def longest(rules: dict[Prefix, bool], default: bool, address: bytes) -> bool:
    """Bit by bit, as a person would."""
    value, bits, best = int.from_bytes(address), 8 * len(address), -1
    for (network, length), verdict in rules.items():
        if length > best and value >> bits - length == int.from_bytes(network) >> bits - length:
            best, default = length, verdict
    return default


def test_without_a_list_everybody_may() -> None:
    assert acl() == EVERYBODY
    assert acl().allow(ip("10.0.0.1"))


def test_the_example_of_the_documents() -> None:
    ranges = acl("10.0.0.0/8", "10.66.0.0/16")
    assert [ranges.allow(ip(a)) for a in ("10.1.2.3", "10.66.0.1", "10.67.0.0", "192.0.2.1")] == [
        True,
        False,
        True,
        False,
    ]
    assert ranges.starts[0] == bytes(16)


def test_only_deny_lets_others_in() -> None:
    ranges = acl(deny="10.66.0.0/16 2001:db8::/32")
    assert not ranges.allow(ip("10.66.255.255"))
    assert not ranges.allow(ip("2001:db8:ffff::1"))
    assert ranges.allow(ip("10.67.0.0"))
    assert ranges.allow(ip("2001:db9::"))


def test_everything_and_nothing() -> None:
    assert acl("0.0.0.0/0").allow(ip("255.255.255.255"))
    assert not acl(deny="::/0").allow(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
    assert not acl(deny="255.255.255.255/32").allow(ip("255.255.255.255"))


def test_ranges_are_the_longest_prefix_on_random_lists() -> None:
    random = Random(1)
    for _ in range(60):
        rules: dict[Prefix, bool] = {}
        for _ in range(random.randrange(1, 30)):
            # Few bits, so that prefixes lie in each other.
            length = random.randrange(33)
            value = random.choice((10, 11, 192)) << 24 | random.getrandbits(4) << 12 | random.getrandbits(2)
            network = (value >> 32 - length << 32 - length).to_bytes(4)
            rules[network, length] = random.random() < 0.5
        allow = tuple(each for each, verdict in rules.items() if verdict)
        ranges = compile_acl(Acl(allow, tuple(each for each, verdict in rules.items() if not verdict)))
        assert len(ranges.starts) <= 2 * len(rules) + 1
        assert list(ranges.starts) == sorted(set(ranges.starts))
        edges = [int.from_bytes(start[12:]) for start in ranges.starts]
        for value in {edge + near & 0xFFFFFFFF for edge in edges for near in (-1, 0, 1)}:
            address = value.to_bytes(4)
            assert ranges.allow(address) == longest(rules, not allow, address)
