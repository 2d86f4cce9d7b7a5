"""flows = "track-changes", in every executor: an entry only where the ring has changed, and nobody moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from l4raw.control.config import parse
from l4raw.control.dataplane import _sizes
from l4raw.core.hashing import hash_key
from l4raw.core.model import Flows, Mode, Scheduler
from l4raw.core.outage import without
from l4raw.core.tables import Arm, Policy, compile_policy
from l4raw.engine.shared import SharedTables
from l4raw.wire import tcp
from l4raw.wire.abi import DROP_NO_BACKEND, EVENT_STATELESS, FORWARD
from tests.crafted import TCP, Tuple5, build
from tests.executors import Executor, Helper, Outcome, Reference
from tests.kernel import EXECUTORS, Kernel
from tests.tables import CLIENT_MAC, OUR_MACS, SEED, VIP, backends, done, ip, make_tables, service
from tests.variants import Patch, load
from tests.variants import build as compiled

pytestmark = pytest.mark.native

COUNT = 120
each_executor = pytest.mark.parametrize("kind", EXECUTORS, ids=lambda kind: kind.name)
each_cell = pytest.mark.parametrize(
    ("mode", "scheduler"),
    [
        (mode, scheduler)
        for mode in (Mode.DSR_L2, Mode.DSR_IPIP, Mode.DSR_GUE)
        for scheduler in (Scheduler.MAGLEV, Scheduler.SH, Scheduler.HRW)
    ],
)


class Balancer:
    """An executor over one such service with four backends, which can be down."""

    def __init__(self, kind: type[Executor], mode: Mode, scheduler: Scheduler, memory: int = 1 << 20) -> None:
        only = replace(service(mode, scheduler, members=backends(4)), flows=Flows.TRACK_CHANGES)
        self.executor = kind(make_tables([only], arms=2, memory=memory, new=kind.new))
        self.tables = self.executor.tables
        self._whole: Policy = self.tables.policy

    def down(self, *numbers: int) -> None:
        """These are, and no others."""
        self.tables.install(done(without(self._whole, numbers, SEED)))

    def send(self, clients: range, flags: int) -> list[int]:
        """A segment of each client, from an address of its own; the backends that they went to."""
        outcomes = self.try_to_send(clients, flags)
        assert {outcome.verdict for outcome in outcomes} == {FORWARD}
        return [outcome.frame[5] - 10 for outcome in outcomes]

    def try_to_send(self, clients: range, flags: int) -> list[Outcome]:
        """The same, whatever becomes of them."""
        flows = [Tuple5(ip(f"10.77.{each >> 8}.{each & 255}"), 4000, VIP, 80, TCP) for each in clients]
        frames = [bytes(build(flow, (OUR_MACS[0], CLIENT_MAC), flags)) for flow in flows]
        return [self.executor.run(frame, 0, 0) for frame in frames]


@each_executor
@each_cell
def test_nothing_is_remembered_as_long_as_nothing_changes(
    mode: Mode, scheduler: Scheduler, kind: type[Executor]
) -> None:
    balancer = Balancer(kind, mode, scheduler)
    clients = range(256, 256 + COUNT)
    began = balancer.send(clients, tcp.SYN)
    assert set(began) == {1, 2, 3, 4}
    assert balancer.send(clients, tcp.ACK) == began == balancer.send(clients, tcp.FIN | tcp.ACK)
    assert len(balancer.tables.flows) == 0
    assert balancer.tables.total_events()[EVENT_STATELESS] == 0
    if isinstance(balancer.executor, Kernel):
        assert balancer.executor.forwarded == 3 * COUNT


@each_executor
@each_cell
def test_nobody_moves_while_backends_come_and_go(
    mode: Mode, scheduler: Scheduler, kind: type[Executor]
) -> None:
    """Some are silent during one change, some during all of them."""
    balancer = Balancer(kind, mode, scheduler)
    silent, spoke = range(256, 256 + COUNT), range(1024, 1024 + COUNT)
    before = balancer.send(silent, tcp.SYN), balancer.send(spoke, tcp.SYN)

    balancer.down(1)
    assert balancer.send(spoke, tcp.ACK) == before[1]
    assert len(balancer.tables.flows) == 0, "who began before needs none"
    while_down = range(2048, 2048 + COUNT)
    began = balancer.send(while_down, tcp.SYN)
    assert set(began) == {2, 3, 4}
    moved = len(balancer.tables.flows)
    assert 0 < moved < COUNT, "of those who began since, who is not at the owner of his slot"

    balancer.down(2)
    assert balancer.send(while_down, tcp.ACK) == began
    assert 2 not in balancer.send(range(3072, 3072 + COUNT), tcp.SYN)

    balancer.down()
    for clients, where in ((silent, before[0]), (spoke, before[1]), (while_down, began)):
        assert balancer.send(clients, tcp.ACK) == where
    assert set(balancer.send(range(4096, 4096 + COUNT), tcp.SYN)) == {1, 2, 3, 4}


@each_executor
def test_connections_go_on_when_all_are_down(kind: type[Executor]) -> None:
    """A failed check may be a mistake."""
    balancer = Balancer(kind, Mode.DSR_L2, Scheduler.MAGLEV)
    clients = range(256, 256 + COUNT)
    began = balancer.send(clients, tcp.SYN)
    balancer.down(1, 2, 3, 4)
    flow = Tuple5(ip("10.77.9.9"), 4000, VIP, 80, TCP)
    syn = bytes(build(flow, (OUR_MACS[0], CLIENT_MAC), tcp.SYN))
    assert balancer.executor.run(syn, 0, 0).verdict == DROP_NO_BACKEND
    assert balancer.send(clients, tcp.ACK) == began
    balancer.down(3)
    assert balancer.send(clients, tcp.ACK) == began


@each_executor
def test_who_began_before_needs_no_room(kind: type[Executor]) -> None:
    """The table is full of flows that began since; and of half-open ones, whose share is full, too."""
    balancer = Balancer(kind, Mode.DSR_L2, Scheduler.MAGLEV, memory=1 << 14)
    old = range(256, 256 + COUNT)
    began = balancer.send(old, tcp.SYN)
    balancer.down(1)
    for start in range(1024, 1024 + 20 * COUNT, COUNT):
        for flags in (tcp.SYN, tcp.ACK, tcp.ACK):
            balancer.try_to_send(range(start, start + COUNT), flags)
    assert len(balancer.tables.flows) == balancer.tables.flows.capacity
    assert balancer.send(old, tcp.ACK) == began


@each_executor
def test_a_service_that_tracked_all_flows_goes_on_with_their_entries(kind: type[Executor]) -> None:
    only = service(Mode.DSR_L2, Scheduler.MAGLEV, members=backends(4))
    executor = kind(make_tables([only], memory=1 << 20, new=kind.new))
    tables, whole = executor.tables, executor.tables.policy
    flows = [Tuple5(ip("10.77.0.1"), port, VIP, 80, TCP) for port in range(4000, 4000 + COUNT)]

    def send(flags: int) -> list[int]:
        frames = [bytes(build(flow, (OUR_MACS[0], CLIENT_MAC), flags)) for flow in flows]
        return [executor.run(frame, 0, 0).frame[5] - 10 for frame in frames]

    tables.install(done(without(whole, [1], SEED)))
    began = send(tcp.SYN)
    assert 1 not in began
    entries = {
        at: each._replace(service=replace(each.service, flows=Flows.TRACK_CHANGES))
        for at, each in whole.services.items()
    }
    tables.install(replace(whole, services=entries))
    assert send(tcp.ACK) == began


SCREEN = "src/screen.h"
MISTAKES = {
    "owner of a changed slot": Patch(SCREEN, "return owner ? *owner : 0;", "return 0;"),
    "SYN to the owner": Patch(SCREEN, "!service->owners || l4_opens(&context->headers)", "!service->owners"),
    "owned slots have entries": Patch(SCREEN, "!owner || !slot || *owner != *slot", "true"),
    "new slots have none": Patch(SCREEN, "!owner || !slot || *owner != *slot", "!owner"),
}


def story(balancer: Balancer) -> tuple[list[list[Outcome]], int]:
    """What becomes of the frames of some clients while a backend goes, and how many flows have an entry."""
    before, after = range(256, 256 + COUNT), range(1024, 1024 + COUNT)
    found = [balancer.try_to_send(before, tcp.SYN)]
    balancer.down(1)
    found += [
        balancer.try_to_send(clients, flags) for clients, flags in ((before, tcp.ACK), (after, tcp.SYN))
    ]
    balancer.down()
    found += [balancer.try_to_send(after, tcp.ACK)]
    return found, len(balancer.tables.flows)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_broken_helper_is_noticed(name: str, tmp_path: Path) -> None:
    """The random frames of the differential test are of other services."""
    module = load(compiled(tmp_path, [MISTAKES[name]]))
    expected, right = (story(Balancer(kind, Mode.DSR_L2, Scheduler.MAGLEV)) for kind in (Reference, Helper))
    assert expected == right
    balancer = Balancer(Helper, Mode.DSR_L2, Scheduler.MAGLEV)
    balancer.executor = Helper(balancer.tables, module)
    assert story(balancer) != expected


def test_there_is_room_for_the_rings_of_many_such_services() -> None:
    """A configuration gets as many slots as it needs; the spare ones are for four more without owners."""
    text = "".join(
        f'[[service]]\nname = "s{port}"\nvip = "10.77.0.100:{port}/tcp"\nmode = "dsr-l2"\n'
        'flows = "track-changes"\nbackends = [{ name = "b1", address = "10.77.0.11" }]\n'
        for port in range(80, 88)
    )
    config = parse('[lb]\ninterfaces = ["eth0"]\nflow_memory = "64KiB"\n' + text, Path("many.toml")).config
    tables = SharedTables((Arm("eth0", OUR_MACS[0]),), hash_key(b""), _sizes(config, 0))
    where = {ip("10.77.0.11"): (tables.next_hops.pin(0, CLIENT_MAC), 0)}
    tables.install(compile_policy(list(config.services), where, SEED))
    assert all(entry.owners for entry in tables.policy.services.values())
