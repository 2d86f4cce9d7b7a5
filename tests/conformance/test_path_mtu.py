"""What routers tell of the path of a tunnel: how long it is known, and what an arm's MTU adds to it."""

from __future__ import annotations

import pytest

from l4raw.core import path_mtu
from l4raw.core.model import Mode, Scheduler
from l4raw.core.tables import Tables, compile_policy
from l4raw.engine.shared import SharedTables
from l4raw.wire import icmp, tcp
from l4raw.wire.abi import DROP_TOO_BIG, ECHO, FORWARD, FRAGMENTED, PASS_NOT_OURS, PASS_PATH_MTU, REPLY
from l4raw.wire.checksum import checksum
from tests.crafted import TCP, Tuple5, build, refix, tuple_of
from tests.executors import Executor, Helper, connect
from tests.kernel import EXECUTORS
from tests.tables import (
    CLIENT_MAC,
    OUR_MACS,
    SEED,
    SOURCES,
    VIP,
    VIP_V6,
    backends,
    backends_v6,
    ip,
    make_tables,
    service,
)

pytestmark = pytest.mark.native

ONE = backends(1)
TUNNEL = [service(Mode.DSR_IPIP, Scheduler.RR, members=ONE)]


def segment(size: int, port: int = 9000, flags: int = tcp.ACK) -> bytes:
    """Of a client's flow, so many bytes of IP packet, and not to be fragmented."""
    frame = build(
        Tuple5(ip("10.77.0.1"), port, VIP, 80, TCP), (OUR_MACS[0], CLIENT_MAC), flags, body=bytes(size - 40)
    )
    frame[20] |= 0x40
    refix(frame)
    return bytes(frame)


def told(outer: bytes, mtu: int, arm: int = 1) -> bytes:
    """A router's error about a packet of ours, from the MAC of the backend."""
    quoted = outer[14 : 14 + 548]
    message = bytearray(icmp.ERROR.pack(*icmp.FRAGMENTATION_NEEDED, 0, mtu) + quoted)
    message[2:4] = checksum(message).to_bytes(2)
    header = bytearray.fromhex("45c00000000000004001 0000") + ip("10.78.0.254") + quoted[12:16]
    header[2:4] = (20 + len(message)).to_bytes(2)
    header[10:12] = checksum(header).to_bytes(2)
    return OUR_MACS[arm] + outer[:6] + b"\x08\0" + bytes(header + message)


def begun(executor: type[Executor]) -> tuple[Executor, bytes]:
    """A flow through the tunnel, and an outer packet of 1520 bytes of it, which our own link takes."""
    tables = make_tables(TUNNEL, arms=2, new=executor.new)
    for arm in range(2):
        tables.set_mtu(arm, 1600)
    run = executor(tables)
    assert run.run(segment(40, flags=tcp.SYN), 0, 0).verdict == FORWARD
    outcome = run.run(segment(1500), 0, 0)
    assert outcome.verdict == FORWARD
    return run, outcome.frame


def missed(tables: Tables) -> int:
    """Frames that were too long for the helper, of all that there were."""
    return tables.misses()["too_long"] if isinstance(tables, SharedTables) else 0


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_was_told_is_known_for_ten_minutes(executor: type[Executor]) -> None:
    run, outer = begun(executor)
    tables = run.tables
    tables.now = 2**32 - 1000
    assert run.run(told(outer, 1400), 1, 0).verdict == PASS_PATH_MTU
    for late in (0, path_mtu.LIFE_MS):
        tables.now = (2**32 - 1000 + late) % 2**32
        path_mtu.expire(tables)
        assert run.run(segment(1380), 0, 0).verdict == FORWARD
        assert run.run(segment(1381), 0, 0).verdict == DROP_TOO_BIG
    assert missed(tables) == (2 if issubclass(executor, Helper) else 0), "C sends what fits"
    assert run.run(told(outer, 1400), 1, 0).verdict == PASS_PATH_MTU, "it is still so"
    tables.now = tables.now + 1000
    path_mtu.expire(tables)
    assert run.run(segment(1381), 0, 0).verdict == DROP_TOO_BIG
    tables.now = tables.now + path_mtu.LIFE_MS
    path_mtu.expire(tables)
    assert not tables.paths
    assert run.run(segment(1500), 0, 0).verdict == FORWARD, "the path may be another one"


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_reload_forgets_nothing_and_a_new_flow_is_told_too(executor: type[Executor]) -> None:
    run, outer = begun(executor)
    tables = run.tables
    assert run.run(told(outer, 1400, arm=0), 0, 0).verdict == PASS_NOT_OURS, "not where the backend is"
    assert run.run(told(outer, 1400), 1, 0).verdict == PASS_PATH_MTU
    for scheduler in (Scheduler.MAGLEV, Scheduler.RR, Scheduler.RR):
        services = [
            service(Mode.DSR_IPIP, scheduler, members=ONE),
            service(Mode.DSR_GUE, name="b", port=81, members=ONE),
        ]
        tables.install(compile_policy(services, {ONE[0].address: (1, 1)}, SEED, None, tables.policy, SOURCES))
        assert run.run(segment(1381), 0, 0).verdict == DROP_TOO_BIG
        assert run.run(segment(1381, 9001, tcp.SYN), 0, 0).verdict == DROP_TOO_BIG
        assert run.run(segment(1380), 0, 0).verdict == FORWARD


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("mode", [Mode.DSR_IPIP, Mode.DSR_GUE])
def test_a_link_that_leaves_an_ipv6_client_too_little(mode: Mode, executor: type[Executor]) -> None:
    """No sender goes below 1280 bytes (RFC 8201, section 4): what is around such a packet is cut."""
    tables = make_tables([service(mode, vip=VIP_V6, members=backends_v6(1))], arms=2, new=executor.new)
    tables.set_mtu(1, 1280)
    run, of = executor(tables), Tuple5(ip("2001:db8:77::1"), 9000, VIP_V6, 80, TCP)
    frames = [build(of, (OUR_MACS[0], CLIENT_MAC), tcp.SYN)]
    frames += [build(of, (OUR_MACS[0], CLIENT_MAC), tcp.ACK, body=bytes(size - 60)) for size in (1281, 1280)]
    first, too_long, longest = (run.run(bytes(frame), 0, 0) for frame in frames)
    assert first.verdict == FORWARD and too_long.verdict == DROP_TOO_BIG
    assert too_long.made[0][58:62] == (1280).to_bytes(4), "the MTU that it is told"
    assert longest.verdict == FRAGMENTED and len(longest.made) == 2
    assert all(len(each) <= 14 + 1280 and each[20] == 44 for each in longest.made)


def ping(size: int) -> bytes:
    """To the VIP, so many bytes of IP packet, and not to be fragmented."""
    message = bytearray(bytes((icmp.ECHO[4], 0, 0, 0, 0, 0, 0, 1)) + bytes(size - 28))
    message[2:4] = checksum(message).to_bytes(2)
    header = bytearray.fromhex("4500 0000 0000 4000 4001 0000") + ip("10.77.0.1") + VIP
    header[2:4] = size.to_bytes(2)
    header[10:12] = checksum(header).to_bytes(2)
    return OUR_MACS[0] + CLIENT_MAC + b"\x08\0" + bytes(header + message)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_frame_is_too_long_for_the_arm_that_it_leaves_by(executor: type[Executor]) -> None:
    """The clients' side takes 700 bytes, the backends' side 1500: C needs no help with what fits."""
    tables = make_tables([service(Mode.NAT, Scheduler.RR, members=backends(1))], arms=2, new=executor.new)
    tables.set_mtu(0, 700)
    run = executor(tables)
    assert connect(run, segment(40, flags=tcp.SYN)).verdict == FORWARD
    asked = run.run(segment(1500), 0, 0)
    assert asked.verdict == FORWARD and missed(tables) == 0
    of = tuple_of(asked.frame)
    assert of
    for size, verdict in ((700, REPLY), (701, DROP_TOO_BIG)):
        reply = build(of.flipped(), (OUR_MACS[1], asked.frame[:6]), body=bytes(size - 40))
        reply[20] |= 0x40
        refix(reply)
        assert run.run(bytes(reply), 1, 0).verdict == verdict
    assert [run.run(ping(size), 0, 0).verdict for size in (700, 701)] == [ECHO, DROP_TOO_BIG]
    assert missed(tables) == (2 if issubclass(executor, Helper) else 0)
