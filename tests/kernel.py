"""The kernel path as an executor: native/bpf/forward.bpf.c by BPF_PROG_RUN.

Which frames do not come to it here, though they would from a wire: shorter
than an Ethernet header or longer than a page, which BPF_PROG_RUN does not
take; and those that are said to have no partial checksum, or one at a known
place, and look otherwise: nobody tells that to an XDP program.

A frame's verdict is seen by the counters, the interface that it leaves by in
its source MAC: the program's result only says that it leaves.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Final

from l4raw.core.hashing import HashKey
from l4raw.core.tables import Arm, Tables
from l4raw.engine.layout import Sizes
from l4raw.engine.memory import Memory
from l4raw.engine.redirect import FORWARD as PROGRAM
from l4raw.engine.redirect import Redirect, possible_cpus
from l4raw.engine.shared import SharedTables
from l4raw.wire.abi import CSUM_DETECT, FORWARD, REPLY
from l4raw.xdp.program import wait_for_programs
from tests.crafted import completed
from tests.executors import Bursts, Executor, Helper, Outcome, OverShared, Reference
from tests.tables import CLIENT_BUCKETS, SLOTS

SHORTEST, LONGEST = 14, 3000
PASS, TX, REDIRECT = 2, 3, 4
"""enum xdp_action. Without a socket, what is redirected to one passes."""
LOOPBACK: Final = 1
"""Where BPF_PROG_RUN lets frames come from."""
NOWHERE: Final = 2

_unused: Final[dict[Sizes, list[Loaded]]] = {}


class Loaded:
    """The program with its maps; used again by the next tables of the same size, as loading takes 0.1 s."""

    def __init__(self, sizes: Sizes) -> None:
        self.redirect = Redirect(sizes, PROGRAM)
        self.mapped: list[Memory] = []

    def allocate(self, name: str, size: int) -> Memory:
        """As `Redirect.allocate`; zeroed."""
        memory = self.redirect.allocate(name, size)
        with memoryview(memory) as view:
            view[:] = bytes(len(view))
        return memory


class KernelTables(SharedTables):
    """Tables that the helper and the program share."""

    loaded: Loaded


def in_kernel(arms: tuple[Arm, ...], key: HashKey, memory: int, hops: int) -> KernelTables:
    """Empty ones."""
    sizes = Sizes(
        memory,
        queues=2,
        ring_slots=SLOTS,
        next_hops=hops,
        client_buckets=CLIENT_BUCKETS,
        cpus=possible_cpus(),
    )
    return of_sizes(arms, key, sizes)


def of_sizes(arms: tuple[Arm, ...], key: HashKey, sizes: Sizes) -> KernelTables:
    """The same, with room for so much."""
    unused = _unused.setdefault(sizes, [])
    loaded = unused.pop() if unused else Loaded(sizes)
    tables = KernelTables(arms, key, sizes, loaded.allocate, wait_for_programs)
    tables.loaded = loaded
    tables.kernel_forwards(True)
    weakref.finalize(tables, unused.append, loaded)
    return tables


def made_by_kernel(tables: Tables, service: str = "") -> int:
    """Flows that programs have put into the table, of all services or of one, by its name."""
    assert isinstance(tables, SharedTables)
    sizes, rows = tables.layout.sizes, tables.layout.at["traffic"]
    first = (sizes.queues + 1) * sizes.backends
    wanted = [each.number for each in tables.policy.by_number if each and each.service.name == service]
    members = {each.number for each in tables.policy.backends if each and each.service in wanted}
    return sum(rows[first + i].flows for i in range(sizes.backends) if not service or i in members)


class Kernel(Helper):
    """`l4raw_forward`, the helper for what it redirects, and the reference for its misses."""

    new = staticmethod(in_kernel)
    name = "the kernel path"

    def __init__(self, tables: Tables, *more: Any) -> None:
        super().__init__(tables, *more)
        assert isinstance(tables, KernelTables)
        self._loaded = tables.loaded
        self._arm = -1
        self.forwarded = 0
        """Frames that the kernel path has sent."""

    def run(self, frame: bytes, arm: int, csum_start: int, segment: int = 0) -> Outcome:
        """One trial."""
        is_told = csum_start > 0 or (csum_start != CSUM_DETECT and completed(frame) != frame)
        if is_told or segment or not SHORTEST <= len(frame) <= LONGEST:
            return super().run(frame, arm, csum_start, segment)
        self._come_in_by(arm)
        before = self._sent()
        ran = self._loaded.redirect._program.run(frame)
        verdicts = [now - was for now, was in zip(self._sent(), before, strict=True)]
        if not any(verdicts):
            assert ran == ran._replace(action=PASS, frame=frame), "what it leaves is as it was"
            return super().run(frame, arm, csum_start)
        assert sum(verdicts) == 1 and ran.action == REDIRECT
        self.forwarded += 1
        macs = [each.mac for each in self.tables.arms]
        return Outcome((FORWARD, REPLY)[verdicts.index(1)], ran.frame, macs.index(ran.frame[6:12]))

    @property
    def admitted(self) -> int:
        """Flows that the kernel path has made, as it counts them."""
        return made_by_kernel(self.tables)

    def _come_in_by(self, arm: int) -> None:
        if arm == self._arm:
            return
        self._arm = arm
        assert isinstance(self.tables, KernelTables)
        numbers = [LOOPBACK if number == arm else NOWHERE for number in range(len(self.tables.arms))]
        self.tables.interfaces_are(numbers)

    def _sent(self) -> tuple[int, int]:
        assert isinstance(self.tables, KernelTables)
        rows = self.tables._queues()[self.tables.layout.sizes.queues + 1 :]
        return sum(r.verdicts[FORWARD] for r in rows), sum(r.verdicts[REPLY] for r in rows)


ROOT: Final = os.geteuid() == 0
"""Whether programs may be loaded; as root, one that cannot be is an error."""
EXECUTORS: tuple[type[Executor], ...] = (Reference, OverShared, Helper, Bursts, *([Kernel] if ROOT else []))
"""A test that loops over them says of all what it says of one."""
