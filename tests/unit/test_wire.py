"""Bytes: checksums and hashes against their definitions, parsing against scapy."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import checksum as scapy_checksum

from l4raw.core.hashing import KEY, flow_hash, hash_key
from l4raw.wire import tcp
from l4raw.wire.checksum import checksum, fold, header_is_valid, pseudo_header, update, update_partial
from l4raw.wire.ethernet import format_mac, parse_mac
from l4raw.wire.headers import Headers, parse
from tests.tables import ip


@given(st.binary(max_size=100))
def test_checksum_is_scapys(data: bytes) -> None:
    assert checksum(data) == scapy_checksum(data) & 0xFFFF


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=12), st.data())
def test_update_is_a_full_computation(words: list[int], data: st.DataObject) -> None:
    words[0] |= 0x4000  # as in a header, not all words are zero
    at = data.draw(st.integers(1, len(words) - 1))
    changed = [*words[:at], data.draw(st.integers(0, 65535)), *words[at + 1 :]]
    before, after = (checksum(b"".join(w.to_bytes(2, "big") for w in ws)) for ws in (words, changed))
    assert update(before, changed[at] - words[at]) == after
    assert update_partial(fold(sum(words)), changed[at] - words[at]) == fold(sum(changed))


def test_the_case_that_rfc_1624_was_written_for() -> None:
    """Section 4: HC 0xDD2F, m 0x5555, m' 0x3285 gives 0x0000, not 0xffff."""
    assert update(0xDD2F, 0x3285 - 0x5555) == 0x0000


def test_a_header_is_valid_or_not() -> None:
    for options in (b"", b"\x94\x04\0\0"):
        header = bytearray(bytes(IP(src="1.2.3.4", dst="5.6.7.8", options=options)))
        assert header_is_valid(header)
        header[8] ^= 1
        assert not header_is_valid(header)


def test_pseudo_header_by_hand() -> None:
    assert pseudo_header(ip("1.2.3.4"), ip("5.6.7.8"), 6, 20) == 0x0102 + 0x0304 + 0x0506 + 0x0708 + 6 + 20  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [b"", b"\x94\x04\0\0"])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_parse_reads_what_scapy_wrote(protocol: type[TCP] | type[UDP], options: bytes) -> None:
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(
        src="1.2.3.4", dst="5.6.7.8", ttl=33, options=options
    )
    packet = Ether(bytes(frame / protocol(sport=258, dport=772)))
    headers = parse(bytes(packet))
    assert isinstance(headers, Headers)
    assert (format_mac(headers.dst_mac), format_mac(headers.src_mac)) == (packet.dst, packet.src)
    assert (headers.src, headers.dst, headers.ttl) == (ip("1.2.3.4"), ip("5.6.7.8"), 33)
    assert (headers.sport, headers.dport, headers.l4) == (258, 772, 34 + len(options))
    assert headers.ip_checksum == packet[IP].chksum and headers.l4_checksum == packet[protocol].chksum
    assert headers.flags == (tcp.SYN if protocol is TCP else 0)


def test_mac_addresses() -> None:
    assert format_mac(parse_mac("02:00:0a:00:00:ff")) == "02:00:0a:00:00:ff"
    with pytest.raises(ValueError, match="no MAC"):
        parse_mac("02:00")


def test_flow_hash_is_the_documented_sum() -> None:
    """All ten words, IPv6 ones included, with nothing folded into a constant."""
    from hashlib import shake_256

    rng = random.Random(7)
    stream = shake_256(b"seed").digest(88)
    k = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 88, 8)]
    for _ in range(100):
        mapped = b"\0" * 10 + b"\xff\xff"
        key = mapped + rng.randbytes(4) + mapped + rng.randbytes(4) + rng.randbytes(4) + rng.randbytes(1)
        words = [int.from_bytes(key[i : i + 4], "big") for i in range(0, 36, 4)] + [key[36]]
        total = (k[0] + sum(a * b for a, b in zip(k[1:], words, strict=True))) % 2**64
        assert flow_hash(hash_key(b"seed"), key) == (total ^ total >> 32) * 0x9E3779B97F4A7C15 % 2**64
    assert KEY.size == 37
