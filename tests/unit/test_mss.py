"""The MSS option: where it is, and what lowering it does to the checksum."""

from __future__ import annotations

import pytest

from l4raw.core.model import Mode, Scheduler
from l4raw.core.rewrite import apply
from l4raw.core.steer import steer
from l4raw.wire import tcp
from l4raw.wire.headers import Headers, parse
from tests.crafted import Tuple5, build, completed, make_partial
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, ip, make_tables, service

MSS = b"\x02\x04\x05\xb4"
OF = Tuple5(ip("10.77.0.1"), 41022, VIP, 80, 6)


@pytest.mark.parametrize(
    ("options", "at"),
    [
        (b"", 0),
        (MSS, 22),
        (b"\x01\x01" + MSS, 24),
        (b"\x04\x02" + MSS + b"\x00\x00", 24),
        (b"\x01" * 36 + MSS, 58),
        (b"\x00" + MSS, 0),
        (b"\x03\x00" + MSS, 0),
        (b"\x03\x01" + MSS, 0),
        (b"\x02\x03\x05" + MSS, 0),
        (b"\x02\x04\x05", 0),
        (b"\x02", 0),
        (b"\x05\x28" + MSS, 0),
    ],
)
def test_where_the_option_is(options: bytes, at: int) -> None:
    assert tcp.mss_at(bytes(20) + options) == at


def with_options(options: bytes, flags: int = tcp.SYN) -> bytearray:
    frame = build(OF, (OUR_MACS[0], CLIENT_MAC), flags)
    frame[34 + 12] = 5 + len(options) // 4 << 4
    frame[16:18] = (40 + len(options)).to_bytes(2)
    frame[24:26] = b"\0\0"
    frame += options
    frame[24:26] = (~sum_of(bytes(frame[14:34])) & 0xFFFF).to_bytes(2)
    make_partial(frame)
    return bytearray(completed(bytes(frame)))


def sum_of(data: bytes) -> int:
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("before", [b"", b"\x01"])
def test_the_checksum_stays_right(mode: Mode, before: bytes) -> None:
    tables = make_tables([service(mode, mss_clamp=1400)], arms=2)
    frame = with_options(before + MSS + b"\x00" * (4 - len(before) & 3))
    decision = steer(frame, 0, 0, tables)
    apply(frame, decision.edits)
    assert frame[34 + 22 + len(before) : 34 + 24 + len(before)] == (1400).to_bytes(2)
    headers = parse(frame)
    assert isinstance(headers, Headers)
    partial = bytearray(frame)
    make_partial(partial)
    assert completed(bytes(partial)) == frame
    names = [name for name, _, _, _ in decision.edits]
    assert "tcp.mss" in names and names.count("tcp.checksum") == 1


def test_old_and_new_of_the_edits_are_the_frames() -> None:
    frame = with_options(MSS)
    for name, at, old, _ in steer(frame, 0, 0, make_tables([service(Mode.NAT, mss_clamp=1400)], 2)).edits:
        assert frame[at : at + len(old)] == old, name


@pytest.mark.parametrize(("flags", "clamp"), [(tcp.SYN, 1460), (tcp.SYN, 0), (tcp.ACK, 1400)])
def test_not_raised_and_not_outside_of_a_syn(flags: int, clamp: int) -> None:
    tables = make_tables([service(scheduler=Scheduler.MAGLEV, mss_clamp=clamp)])
    decision = steer(with_options(MSS, flags), 0, 0, tables)
    assert decision.name == "forward"
    assert "tcp.mss" not in [name for name, _, _, _ in decision.edits]
