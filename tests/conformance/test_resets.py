"""What the helper leaves to Python of segments without a flow: those that are answered, and no others."""

from __future__ import annotations

import pytest

from l4raw.core.model import Mode, Scheduler
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_NO_FLOW
from l4raw.wire.ipv4 import TCP
from tests.crafted import Tuple5, build
from tests.executors import Bursts, Helper
from tests.tables import CLIENT_MAC, OUR_MACS, VIP, ip, make_tables, service

pytestmark = pytest.mark.native


def segment(flags: int, sport: int = 1) -> bytes:
    return bytes(build(Tuple5(ip("10.77.0.1"), sport, VIP, 80, TCP), (OUR_MACS[0], CLIENT_MAC), flags))


@pytest.mark.parametrize("kind", [Helper, Bursts])
@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.MAGLEV, Scheduler.WLC])
@pytest.mark.parametrize("mode", [Mode.NAT, Mode.FULLNAT])
def test_a_reset_without_a_flow_costs_python_nothing(
    mode: Mode, scheduler: Scheduler, kind: type[Helper]
) -> None:
    executor = kind(make_tables([service(mode, scheduler)], arms=2, new=kind.new))
    assert isinstance(executor.tables, SharedTables)
    for flags, misses in ((tcp.RST, 0), (tcp.RST | tcp.ACK, 0), (tcp.ACK, 1), (tcp.SYN | tcp.ACK, 2)):
        outcome = executor.run(segment(flags), 0, 0)
        assert outcome.verdict == DROP_NO_FLOW
        assert executor.tables.misses() == dict.fromkeys(executor.tables.misses(), 0) | {"reset": misses}
        assert bool(outcome.made) == (not flags & tcp.RST)


@pytest.mark.parametrize("kind", [Helper, Bursts])
@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.LC])
def test_under_direct_return_none_is_left_to_python(scheduler: Scheduler, kind: type[Helper]) -> None:
    executor = kind(make_tables([service(scheduler=scheduler)], new=kind.new))
    assert isinstance(executor.tables, SharedTables)
    outcome = executor.run(segment(tcp.ACK), 0, 0)
    assert outcome.verdict == DROP_NO_FLOW and outcome.made == ()
    assert not any(executor.tables.misses().values())
