"""Text of a configuration to values: addresses, VIPs, sizes, durations, words.

Each function takes what stands in the file and gives a value, or raises
`Refused`. Nothing here knows where in the file the text stood, or looks at two
values at once (meaning.py does).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address, ip_network

PROTOCOLS = {"tcp": 6, "udp": 17}
"""IANA protocol numbers."""

MAX_PORT = 65535

SNAT_PORTS = "1024-65535"
"""Of a SNAT address, if nothing else is said: all but those that only root's programs use."""

_VIP = re.compile(r"(?P<address>\[[^\]]*\]|[^:/]*):(?P<port>[0-9]+)/(?P<protocol>\w+)")
_PORTS = re.compile(r"(?P<first>[0-9]{1,9})(-(?P<last>[0-9]{1,9}))?")
_QUANTITY = re.compile(r"(?P<number>[0-9]+) ?(?P<unit>[A-Za-z]+)")
_SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_SERVICE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
# What the kernel (dev_valid_name) refuses. It also refuses more than 15 bytes, counted below.
_INTERFACE_NAME = re.compile(r"[^\s/:\x00-\x1f\x7f]+")

_UNUSABLE = (
    ("the broadcast address", ip_network("255.255.255.255/32")),
    ("in 0.0.0.0/8, which means this network", ip_network("0.0.0.0/8")),
    ("a loopback address", ip_network("127.0.0.0/8")),
    ("a multicast address", ip_network("224.0.0.0/4")),
    ("in 240.0.0.0/4, which is reserved", ip_network("240.0.0.0/4")),
    ("the unspecified address", ip_network("::/128")),
    ("a loopback address", ip_network("::1/128")),
    ("an IPv4-mapped address, which is never on a wire: write the IPv4 one", ip_network("::ffff:0:0/96")),
    ("a link-local address, which means nothing without its interface", ip_network("fe80::/10")),
    ("a multicast address", ip_network("ff00::/8")),
)


class Refused(ValueError):
    """A value that is not accepted: a code, a clause to follow the name of the key, and advice.

    A ValueError, so that pydantic collects it instead of stopping.
    """

    def __init__(self, code: str, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Vip:
    """Where a service is reached."""

    address: bytes
    """4 or 16 bytes, network order."""
    port: int
    """0: every port."""
    protocol: int
    """IANA number."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean "..."?` or nothing."""
    close = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def word(value: str, known: Collection[str], later: Collection[str] = ()) -> str:
    """One of the words in `known`; those in `later` exist, but not in this version.

    Raises Refused: L4R-112, L4R-113.
    """
    if value in known:
        return value
    choices = ", ".join(known)
    if value in later:
        raise Refused("L4R-113", f'"{value}" is not in this version; it has {choices}')
    hint = suggestion(value, (*known, *later))
    raise Refused("L4R-112", f'"{value}" is unknown{hint}', f"use one of: {choices}")


def address(text: str) -> bytes:
    """A unicast address as 4 or 16 bytes in network order. Raises Refused: L4R-109, L4R-139."""
    try:
        parsed = ip_address(text)
    except ValueError:
        raise _not_an_address(text) from None
    if "%" in text:
        raise Refused("L4R-109", f'"{text}" names an interface', "write the address alone")
    for reason, network in _UNUSABLE:
        if parsed in network:
            raise Refused("L4R-139", f'"{text}" is {reason}')
    return parsed.packed


def _not_an_address(text: str) -> Refused:
    if text[:1] == "[" and _is_ipv6(text[1:].partition("]")[0]):
        inner = text[1:].partition("]")[0]
        fix = f'write address = "{inner}" and port as a key of its own'
        return Refused("L4R-109", f'"{text}" is not an address', fix)
    host, colon, _ = text.partition(":")
    if colon and re.fullmatch(r"[0-9.]+", host):
        fix = f'write address = "{host}" and port as a key of its own'
        return Refused("L4R-109", f'"{text}" is not an address', fix)
    if re.fullmatch(r"[0-9.]+/[0-9]+", text):
        fix = "write it without the prefix length"
        return Refused("L4R-109", f'"{text}" is a network, not an address', fix)
    return Refused("L4R-109", f'"{text}" is not an address ({_detail(text)})')


def _detail(text: str) -> str:
    """What ipaddress says, which has the text in it once more: "Octet 256 (> 255) not permitted in '...'"."""
    try:
        (IPv6Address if ":" in text else IPv4Address)(text)
    except AddressValueError as error:
        return str(error).partition(" in '")[0].partition(": '")[0]
    return ""


def prefix(text: str) -> tuple[bytes, int]:
    """First address and length of a network, `10.0.0.0/8`; an address alone is a network of one.

    Raises Refused L4R-160.
    """
    try:
        network = ip_network(text)
    except ValueError as error:
        try:
            fix = f'write "{ip_network(text, strict=False)}"'
        except ValueError:
            fix = ""
        said = str(error)
        reason = f" ({said.removeprefix(text).strip()})" if said.startswith(text + " has") else ""
        raise Refused("L4R-160", f'"{text}" is not a network{reason}', fix) from None
    if "%" in text:
        raise Refused("L4R-160", f'"{text}" names an interface', "write the network alone")
    return network.network_address.packed, network.prefixlen


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text.strip("[]"))
    except AddressValueError:
        return False
    return True


def vip(text: str) -> Vip:
    """`A.B.C.D:PORT/PROTOCOL` or `[IPV6]:PORT/PROTOCOL`. Raises Refused: L4R-110 to -112, see address."""
    match = _VIP.fullmatch(text)
    if match is None:
        host, _, rest = text.rpartition(":")
        if _is_ipv6(host):
            fix = f'write "[{host}]:{rest}"'
            raise Refused("L4R-110", f'"{text}" has an IPv6 address without brackets', fix)
        raise Refused("L4R-110", f'"{text}" is not ADDRESS:PORT/PROTOCOL')
    protocol = PROTOCOLS.get(match["protocol"])
    if protocol is None:
        hint = suggestion(match["protocol"], PROTOCOLS)
        raise Refused("L4R-112", f'protocol "{match["protocol"]}" is unknown{hint}', "use tcp or udp")
    number = int(match["port"][:9])
    if number > MAX_PORT:
        raise Refused("L4R-111", f"port {match['port']} is above {MAX_PORT}")
    text = match["address"]
    return Vip(address(text[1:-1] if text[0:1] == "[" else text), number, protocol)


def port(value: int) -> int:
    """A port of a backend or a SNAT address. Raises Refused L4R-111."""
    if not 1 <= value <= MAX_PORT:
        raise Refused("L4R-111", f"{value} is not in 1 to {MAX_PORT}", "use a port from 1 to 65535")
    return value


def port_range(text: str) -> tuple[int, int]:
    """First and last port of `1024-65535`, or of `5000` alone. Raises Refused: L4R-111, L4R-116."""
    match = _PORTS.fullmatch(text)
    if match is None:
        raise Refused("L4R-116", f'"{text}" is not FIRST-LAST, two ports')
    first, last = int(match["first"]), int(match["last"] or match["first"])
    for each in (first, last):
        port(each)
    if first > last:
        raise Refused("L4R-116", f'"{text}" ends before it begins', f'write "{last}-{first}"')
    return first, last


def size(text: str, lowest: str, highest: str) -> int:
    """Bytes of `64MiB`, between two such texts. Raises Refused: L4R-107, L4R-114."""
    return _quantity(text, _SIZES, "a size", lowest, highest)


def duration(text: str, lowest: str, highest: str) -> int:
    """Milliseconds of `15m`, between two such texts. Raises Refused: L4R-107, L4R-114."""
    return _quantity(text, _MILLISECONDS, "a duration", lowest, highest)


def _quantity(text: str, units: dict[str, int], kind: str, lowest: str, highest: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None or match["unit"] not in units:
        known = ", ".join(units)
        raise Refused("L4R-114", f'"{text}" is not {kind}: a whole number and one of {known}')
    value = int(match["number"][:18]) * units[match["unit"]]
    if not _exact(lowest, units) <= value <= _exact(highest, units):
        raise Refused("L4R-107", f'"{text}" is not in {lowest} to {highest}')
    return value


def _exact(text: str, units: dict[str, int]) -> int:
    match = _QUANTITY.fullmatch(text)
    assert match is not None
    return int(match["number"]) * units[match["unit"]]


def whole_number(value: int, lowest: int, highest: int) -> int:
    """An int between two others. Raises Refused L4R-107."""
    if not lowest <= value <= highest:
        raise Refused("L4R-107", f"{value} is not in {lowest} to {highest}")
    return value


def service_name(text: str) -> str:
    """The name of a service or a backend. Raises Refused L4R-115."""
    if _SERVICE_NAME.fullmatch(text) is None:
        raise Refused("L4R-115", f'"{text}" is not a name')
    return text


def interface_name(text: str) -> str:
    """A name that Linux allows for an interface. Raises Refused L4R-115."""
    if _INTERFACE_NAME.fullmatch(text) is None or len(text.encode()) > 15 or text in (".", ".."):
        fix = "list the interfaces with `ip -br link`"
        raise Refused("L4R-115", f'"{text}" cannot be the name of an interface', fix)
    return text
