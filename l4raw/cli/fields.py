"""A frame field by field: where each is, what it holds, and what is wrong with it.

Lives here: the reading of a frame for a person, malformed ones included, at
the offsets that l4raw/wire/ names. Must not live here: a verdict. That is
steer()'s alone; this module only shows the bytes that it was about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Final, NamedTuple

from l4raw.cli.render import flag_letters
from l4raw.wire import abi, ethernet, ipv4, ipv6, tcp, udp
from l4raw.wire.checksum import checksum
from l4raw.wire.headers import Headers, parse

_TYPES: Final = {
    ethernet.IPV4: "IPv4",
    ethernet.ARP: "ARP",
    ethernet.IPV6: "IPv6",
    ethernet.VLAN: "VLAN",
}
_PROTOCOLS: Final = {ipv4.ICMP: "icmp", ipv4.TCP: "tcp", ipv4.UDP: "udp", ipv6.ICMPV6: "icmpv6"}
_DONT, _MORE, _OFFSET = 0x4000, 0x2000, 0x1FFF
"""Flags and fragment offset (in units of 8 bytes): RFC 791, section 3.1."""


class Field(NamedTuple):
    """One field as it stands in the frame."""

    offset: int
    name: str
    data: bytes
    text: str


def fields(frame: bytes) -> Iterator[Field]:
    """The fields that this many bytes have room for, in order."""
    ip = ethernet.length(frame)
    yield from _layer(frame, 0, "eth", _ETHERNET)
    if ip > ethernet.LENGTH:
        yield from _layer(frame, ethernet.LENGTH, "tag", _TAG)
    if is_v6(frame):
        yield from _fields_v6(frame)
    if _ethertype(frame) != ethernet.IPV4:
        return
    yield from _layer(frame, ip, "ip", _IPV4)
    protocol = _number(frame, ip + ipv4.PROTOCOL, 1)
    length = header_length(frame)
    if length >= ipv4.LENGTH and not _number(frame, ip + ipv4.FRAGMENT, 2) & ipv4.IS_FRAGMENT:
        if protocol == ipv4.TCP:
            yield from _layer(frame, ip + length, "tcp", _TCP)
        elif protocol == ipv4.UDP:
            yield from _layer(frame, ip + length, "udp", _UDP)


def _ethertype(frame: bytes) -> int:
    """Of what follows the Ethernet header, its tag included."""
    return _number(frame, ethernet.length(frame) - 2, 2)


def is_v6(frame: bytes) -> bool:
    """Whether its EtherType says so."""
    return _ethertype(frame) == ethernet.IPV6


def _fields_v6(frame: bytes) -> Iterator[Field]:
    """Extension headers are not shown; what follows them is, where it can be read."""
    yield from _layer(frame, ethernet.length(frame), "ip", _IPV6)
    headers = parse(frame)
    if isinstance(headers, Headers) and headers.l4:
        is_tcp = headers.protocol == ipv4.TCP
        yield from _layer(frame, headers.l4, *(("tcp", _TCP) if is_tcp else ("udp", _UDP)))


def header_length(frame: bytes) -> int:
    """What IHL says, in bytes; 0 if it is cut off."""
    return (_number(frame, ethernet.length(frame) + ipv4.VERSION_IHL, 1) & 0xF) * 4


def table(frame: bytes) -> Iterator[str]:
    """The fields as lines, under a heading."""
    yield "  offset  field           value"
    for field in fields(frame):
        yield f"  {field.offset:6}  {field.name:16}{field.text}"


def detail(frame: bytes, verdict: int) -> str | None:
    """The numbers behind a verdict that says that the frame is malformed; None for any other."""
    explain = _DETAILS.get(verdict)
    return explain(frame) if explain else None


_Layout = tuple[tuple[str, int, int, Callable[[bytes], str]], ...]
"""Name, offset in the header, bytes, and how to write them."""


def _layer(frame: bytes, start: int, layer: str, layout: _Layout) -> Iterator[Field]:
    for name, offset, size, write in layout:
        data = frame[start + offset : start + offset + size]
        if len(data) == size:
            yield Field(start + offset, f"{layer}.{name}", data, write(data))


def _number(frame: bytes, offset: int, size: int) -> int:
    """0 for what is cut off."""
    data = frame[offset : offset + size]
    return int.from_bytes(data, "big") if len(data) == size else 0


def _decimal(data: bytes) -> str:
    return str(int.from_bytes(data, "big"))


def _tci(data: bytes) -> str:
    value = int.from_bytes(data, "big")
    eligible = ", may be dropped" if value & ethernet.DROP_ELIGIBLE else ""
    return f"VLAN {value & ethernet.VLAN_NUMBER}, priority {value >> ethernet.PRIORITY_AT}{eligible}"


def _hex(data: bytes) -> str:
    return f"0x{data.hex()}"


def _type(data: bytes) -> str:
    return _named(_hex(data), _TYPES.get(ethernet.EtherType(int.from_bytes(data, "big"))))


def _protocol(data: bytes) -> str:
    return _named(str(data[0]), _PROTOCOLS.get(ipv4.IpProto(data[0])))


def _named(text: str, name: str | None) -> str:
    return f"{text} ({name})" if name else text


def _version(data: bytes) -> str:
    return f"version {data[0] >> 4}, header of {(data[0] & 0xF) * 4} bytes"


def _fragment(data: bytes) -> str:
    value = int.from_bytes(data, "big")
    words = ["don't fragment"] * bool(value & _DONT)
    if value & ipv4.IS_FRAGMENT:
        words.append(f"bytes from {(value & _OFFSET) * 8} on")
        words.append("more follow" if value & _MORE else "the last")
    return _named(_hex(data), ", ".join(words))


def _data_offset(data: bytes) -> str:
    return f"header of {(data[0] >> 4) * 4} bytes"


def _flags(data: bytes) -> str:
    return _named(_hex(data), flag_letters(data[0]))


def _address(data: bytes) -> str:
    return str(ip_address(data))


_ETHERNET: Final[_Layout] = (
    ("dst", ethernet.DST, 6, ethernet.format_mac),
    ("src", ethernet.SRC, 6, ethernet.format_mac),
    ("type", ethernet.TYPE, 2, _type),
)
_TAG: Final[_Layout] = (
    ("tci", 0, 2, _tci),
    ("type", 2, 2, _type),
)
_IPV4: Final[_Layout] = (
    ("version,ihl", ipv4.VERSION_IHL, 1, _version),
    ("length", ipv4.TOTAL_LENGTH, 2, _decimal),
    ("fragment", ipv4.FRAGMENT, 2, _fragment),
    ("ttl", ipv4.TTL, 1, _decimal),
    ("protocol", ipv4.PROTOCOL, 1, _protocol),
    ("checksum", ipv4.CHECKSUM, 2, _hex),
    ("src", ipv4.SRC, 4, _address),
    ("dst", ipv4.DST, 4, _address),
)
_IPV6: Final[_Layout] = (
    ("length", ipv6.PAYLOAD_LENGTH, 2, _decimal),
    ("next", 6, 1, _protocol),
    ("ttl", ipv6.TTL, 1, _decimal),
    ("src", ipv6.SRC, 16, _address),
    ("dst", ipv6.DST, 16, _address),
)
_TCP: Final[_Layout] = (
    ("sport", tcp.SPORT, 2, _decimal),
    ("dport", tcp.DPORT, 2, _decimal),
    ("offset", tcp.OFFSET, 1, _data_offset),
    ("flags", tcp.FLAGS, 1, _flags),
    ("checksum", tcp.CHECKSUM, 2, _hex),
)
_UDP: Final[_Layout] = (
    ("sport", udp.SPORT, 2, _decimal),
    ("dport", udp.DPORT, 2, _decimal),
    ("length", udp.LENGTH, 2, _decimal),
    ("checksum", udp.CHECKSUM, 2, _hex),
)


def _short(frame: bytes) -> str:
    size, ip = len(frame), ethernet.length(frame)
    if size < ip:
        tag = " with a tag" if ip > ethernet.LENGTH else ""
        return f"the frame has {size} bytes; an Ethernet header{tag} has {ip}"
    room = size - ip
    if is_v6(frame):
        if room < ipv6.LENGTH:
            return f"{room} bytes follow the Ethernet header; an IPv6 header has {ipv6.LENGTH}"
        payload = _number(frame, ip + ipv6.PAYLOAD_LENGTH, 2)
        return f"the TCP or UDP header does not fit into the payload of {payload} bytes"
    if room < ipv4.LENGTH:
        return f"{room} bytes follow the Ethernet header; an IPv4 header has {ipv4.LENGTH} or more"
    protocol = _number(frame, ip + ipv4.PROTOCOL, 1)
    name, least = ("TCP", tcp.LENGTH) if protocol == ipv4.TCP else ("UDP", udp.HEADER_LENGTH)
    left = _number(frame, ip + ipv4.TOTAL_LENGTH, 2) - header_length(frame)
    return f"{left} bytes follow the IPv4 header; a {name} header has {least} or more"


def _ip_version(frame: bytes) -> str:
    ip = ethernet.length(frame)
    if is_v6(frame):
        return f"the upper half of byte {ip} is {frame[ip] >> 4}; IPv6 has 6 there"
    return f"the upper half of byte {ip + ipv4.VERSION_IHL} is {frame[ip] >> 4}; IPv4 has 4 there"


def _ip_header_length(frame: bytes) -> str:
    ip = ethernet.length(frame)
    length = header_length(frame)
    return (
        f"IHL, the lower half of byte {ip + ipv4.VERSION_IHL}, says {length // 4} words, {length} bytes;"
        f" {ipv4.LENGTH} is the least, and {len(frame) - ip} are there"
    )


def _ip_length(frame: bytes) -> str:
    ip = ethernet.length(frame)
    if is_v6(frame):
        room, says = len(frame) - ip - ipv6.LENGTH, _number(frame, ip + ipv6.PAYLOAD_LENGTH, 2)
        at = ip + ipv6.PAYLOAD_LENGTH
        return f"bytes {at} and on say {says}; {room} bytes follow the IPv6 header"
    total = _number(frame, ip + ipv4.TOTAL_LENGTH, 2)
    return (
        f"bytes {ip + ipv4.TOTAL_LENGTH} and on say {total}; the header alone has {header_length(frame)},"
        f" and {len(frame) - ip} bytes follow the Ethernet header"
    )


def _ip_checksum(frame: bytes) -> str:
    ip = ethernet.length(frame)
    at = ip + ipv4.CHECKSUM
    header = bytearray(frame[ip : ip + header_length(frame)])
    header[ipv4.CHECKSUM : ipv4.CHECKSUM + 2] = bytes(2)
    return f"0x{frame[at : at + 2].hex()} at offset {at}; these bytes ask for 0x{checksum(header):04x}"


def _ip_extensions(frame: bytes) -> str:
    ip = ethernet.length(frame)
    payload = _number(frame, ip + ipv6.PAYLOAD_LENGTH, 2)
    return f"at most {ipv6.MOST_EXTENSIONS} are read, and all must end within the payload of {payload} bytes"


def _tcp_offset(frame: bytes) -> str:
    ip = ethernet.length(frame)
    if is_v6(frame):
        return f"below {tcp.LENGTH} bytes, or more than the segment has"
    at = ip + header_length(frame) + tcp.OFFSET
    segment = _number(frame, ip + ipv4.TOTAL_LENGTH, 2) - header_length(frame)
    return (
        f"the upper half of byte {at} says {frame[at] >> 4} words, {(frame[at] >> 4) * 4} bytes;"
        f" {tcp.LENGTH} is the least, and the segment has {segment}"
    )


def _udp_length(frame: bytes) -> str:
    ip = ethernet.length(frame)
    if is_v6(frame):
        return f"below {udp.HEADER_LENGTH}, or more than the datagram has room for"
    at = ip + header_length(frame) + udp.LENGTH
    room = _number(frame, ip + ipv4.TOTAL_LENGTH, 2) - header_length(frame)
    return (
        f"bytes {at} and on say {_number(frame, at, 2)}; {udp.HEADER_LENGTH} is the least,"
        f" and the datagram has room for {room}"
    )


_DETAILS: Final[dict[int, Callable[[bytes], str]]] = {
    abi.DROP_SHORT: _short,
    abi.DROP_IP_VERSION: _ip_version,
    abi.DROP_IP_HEADER_LENGTH: _ip_header_length,
    abi.DROP_IP_LENGTH: _ip_length,
    abi.DROP_IP_CHECKSUM: _ip_checksum,
    abi.DROP_IP_EXTENSIONS: _ip_extensions,
    abi.DROP_TCP_OFFSET: _tcp_offset,
    abi.DROP_UDP_LENGTH: _udp_length,
}
