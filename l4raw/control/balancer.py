"""The balancer: configuration, host and packet path put together, started and stopped.

Each part is opened in an order in which a failure leaves nothing behind, and
closed in the opposite one. Only here do the packet path and the host meet:
core knows no host, and the rest of control sees no frame.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from l4raw.control import dataplane
from l4raw.control.advice import snat_warnings, vip_warnings
from l4raw.control.guard import Guard
from l4raw.control.health import Health
from l4raw.control.inspection import RESOLVE_S
from l4raw.control.instance import Instance, heal
from l4raw.control.kernel_path import Forwards
from l4raw.control.neighbours import Neighbours
from l4raw.control.netlink import Interface
from l4raw.control.policy import install
from l4raw.control.responder import Responders
from l4raw.control.settings import Config
from l4raw.control.standing import Event
from l4raw.control.vip_probe import VipProbe
from l4raw.control.vips import SNAT, VIP, snat_addresses, vips
from l4raw.control.watch import Watch
from l4raw.core import fragments, path_mtu
from l4raw.core.states import expire
from l4raw.core.steer import steer
from l4raw.core.tables import Arm, Policy, Tables
from l4raw.engine.base import Engine, Steer, forward

TICK_S: Final = 0.01
"""How often flows are looked at for expiry, and the longest wait for a frame."""
_SWEEP_S: Final = 40.0
"""How long a look at every flow should take, so that a flow lives a little longer than its timeout."""
_SWEEP_LEAST, _SWEEP_MOST = 64, 1024
"""Flow entries a tick: 0.5 ms of Python at most, and 2 ms when all of them end. So a table of more than
250 MiB takes longer."""
_LOOK_S: Final = 1.0
_WRAP: Final = 0xFFFF_FFFF

Step = Callable[[str], None]
"""Told of each thing that was done to the host. During the start, what it raises ends it."""


class Balancer:
    """A running balancer: `with Balancer(...) as balancer: balancer.run(...)`."""

    def __init__(
        self,
        config: Config,
        interfaces: Sequence[Interface],
        name: str,
        run_dir: Path,
        seed: bytes | Callable[[], bytes],
        accept_ssh_loss: bool = False,
        sample: int = 0,
    ) -> None:
        """Opens nothing. `interfaces` is what `inspect` returned.

        Python decides until `sample` frames were sent, whatever the dataplane.

        `seed` is the ring seed, or what gives it when the locks are held. Raises `ValueError` for a
        name that is no file name.
        """
        self.config = config
        self.name = name
        self.arms = tuple(Arm(interface.name, interface.mac, interface.mtu) for interface in interfaces)
        self.dataplane = ""
        """Its name; what there is, after `open`: likewise `engine` and `tables`."""
        self.dataplane_note = ""
        """How it works, such as "native, copy mode, 1 queue", or why it is not another one."""
        self.engine: Engine
        self.tables: Tables
        self._made: dataplane.Dataplane
        self._accept_ssh_loss, self._sample = accept_ssh_loss, sample
        self.unresolved: list[str] = []
        """Backends whose MAC address is not known, as it was a second ago at most."""
        self.warnings = vip_warnings(config, interfaces) + snat_warnings(config, interfaces)
        """What is valid and may still disappoint, on this host."""
        self.left: list[str] = []
        """After `close`: what could not be undone, a sentence each."""
        self.final_statistics: dict[str, Any] = {}
        """After `close`: the engine's own counters."""
        self.conflicts: deque[tuple[bytes, bytes]] = deque()
        """VIPs and SNAT addresses that another host claims too, with its MAC; who tells it takes it out."""
        self.kernel_path: deque[Forwards] = deque()
        """In which state it is, when it begins and when that changes; likewise."""
        self.health_events: deque[Event] = deque()
        """Backends that went up or down; likewise."""
        self._interfaces = list(interfaces)
        self._run_dir = run_dir
        self._instance = Instance(name, run_dir)
        self._seed = seed
        self._guard = Guard(name, config.lb.interfaces, config.services)
        self._neighbours: Neighbours | None = None
        self._health: Health | None = None
        self._step: Step = lambda text: None
        self._checks: list[Callable[[], None]] = []
        """Each raises what must end the balancer."""
        self._open = ExitStack()
        self._locked = False
        self._started = time.monotonic()

    def lock(self) -> list[str]:
        """Take the locks. A sentence for each thing that an instance which died had left.

        It is undone now; one that begins with "left" says what could not be.

        Raises L4R-204 for an interface or a name in use, L4R-205 for a foreign object under our name,
        L4R-301 where this user may not write; then nothing is held.
        """
        healed = heal(self._run_dir) + self._instance.acquire(self._interfaces)
        self._locked = True
        self._open.callback(self._release)
        try:
            self._guard.refuse_foreign()
            if callable(self._seed):
                self._seed = self._seed()
        except BaseException:
            self.close()
            raise
        return healed

    def open(self, step: Step = lambda text: None) -> None:
        """Make engine and tables; AF_XDP attaches its program, which redirects nothing yet.

        What needs CAP_BPF is done then. Raises L4R-203, L4R-205, L4R-301, L4R-304, L4R-307: see
        dataplane.make(); then everything that was done is undone.
        """
        try:
            made = dataplane.make(self.config, self._interfaces, self._accept_ssh_loss, self._sample)
            self._made, self.dataplane_note = made, made.note
            self.dataplane, self.engine, self.tables = made.name, made.engine, made.tables
            self._open.callback(fragments.end, self.tables)
            if self.dataplane != dataplane.RAW:
                self._open.callback(self._close_engine)
                step(f"attach: XDP program on {', '.join(arm.name for arm in self.arms)} ({made.note})")
            elif made.note:
                step(f"dataplane: {self.dataplane}; {made.note}")
            if made.egress:
                self._open.callback(made.egress.close)
                step(f"test: frames that XDP redirects to {made.egress}")
        except BaseException:
            self.close()
            raise

    def start(self, step: Step = lambda text: None) -> Self:
        """Resolve the backends, claim the VIPs and begin to listen; does before what was not done before.

        Asks once more, for 0.1 s, whether somebody has a VIP (L4R-201). Raises L4Error; then everything
        that was done is undone.
        """
        self._step = step
        try:
            for line in [] if self._locked else self.lock():
                step(f"heal: {line}")
            if not self.dataplane:
                self.open(step)
            self._start(step)
        except BaseException:
            self.close()
            raise
        return self

    def _start(self, step: Step) -> None:
        step(f"lock: instance {self.name}")
        watch = Watch(self._interfaces, vips(self.config), snat_addresses(self.config))
        self._open.callback(watch.close)
        neighbours = Neighbours(self.tables.next_hops, self._interfaces, self.config.services)
        neighbours.start()
        self._open.callback(neighbours.close)
        self.unresolved = neighbours.wait_resolved(RESOLVE_S)
        backends = sum(len(service.backends) for service in self.config.services)
        step(f"neighbours: {backends - len(self.unresolved)} of {backends} backends resolved")
        assert isinstance(self._seed, bytes), "lock() has made it"
        policy = install(self.config, neighbours, self._seed, self.tables)

        self._neighbours = neighbours
        self._checks = [watch.look, partial(self._take_mtus, watch), neighbours.check]
        self._checks += dataplane.checks(self._made, self.kernel_path.append, self._open)
        of_vips = self._responder(0, vips(self.config), VIP)
        of_snat = self._responder(-1, snat_addresses(self.config), SNAT)
        self._open.callback(self._guard.close)
        self._keep_kernel_out()

        if self.dataplane == dataplane.RAW:
            try:
                self.engine.open()
            except OSError as error:
                raise dataplane.failed(error) from error
            self._open.callback(self._close_engine)
            step(f"listen: packet sockets on {', '.join(arm.name for arm in self.arms)}")
        # Somebody may have come since `inspect` asked.
        for each in (of_vips, of_snat):
            each.probe(neighbours.owners, count=1)
        for each in (of_vips, of_snat):
            each.start()
            if each.names:
                step(f"{each.names}: answering for {each.count} {each.kind}(s) on {each.interface}")
        self._check_health(policy, neighbours)

    def _responder(self, arm: int, addresses: Sequence[bytes], kind: str) -> Responders:
        responder = Responders(self._interfaces[arm], addresses, self._conflict, kind)
        self._open.callback(responder.close)
        self._checks.append(responder.check)
        return responder

    def _check_health(self, policy: Policy, neighbours: Neighbours) -> None:
        assert isinstance(self._seed, bytes)
        probe = VipProbe(self._interfaces[-1], neighbours.mac_of)
        self._health = health = Health(policy, self.config.checks, self._seed, probe)
        health.start()
        self._open.callback(health.close)
        self._checks.append(health.check)

    def _conflict(self, vip: bytes, mac: bytes) -> None:
        self.conflicts.append((vip, mac))

    def run(
        self,
        stopping: Callable[[], bool],
        each_second: Callable[[], None] | None = None,
        decide: Steer = steer,
    ) -> None:
        """Forward until `stopping()`.

        Raises L4R-306 when an interface is lost or gets another MAC, L4R-202 when a VIP becomes an address
        of this host, L4R-205 or L4R-206 when the host begins to forward packets and its copies cannot be
        kept out; and whatever ended a thread of ours.
        """
        tables, engine = self.tables, self.engine
        tick = second = 0.0
        sweep = min(_SWEEP_MOST, max(_SWEEP_LEAST, int(tables.flows.entries * TICK_S / _SWEEP_S)))
        while not stopping():
            if self._health and (change := self._health.take()):
                tables.install(change.policy)
                self.health_events.extend(change.events)
            now = time.monotonic()
            tables.now = int((now - self._started) * 1000) & _WRAP
            if now >= tick:
                tick = now + TICK_S
                expire(tables, sweep)
                fragments.expire(tables)
                path_mtu.expire(tables)
                if now >= second:
                    second = now + _LOOK_S
                    self._look_at_host()
                    if each_second:
                        each_second()
            try:
                forward(engine, tables, TICK_S, decide)
            except OSError as error:
                raise dataplane.failed(error) from error

    def _look_at_host(self) -> None:
        for check in self._checks:
            check()
        self._keep_kernel_out()
        if self._neighbours:
            self.unresolved = self._neighbours.unresolved()

    def _take_mtus(self, watch: Watch) -> None:
        for number, mtu in enumerate(watch.mtus()):
            if mtu != self.tables.arms[number].mtu:
                self.tables.set_mtu(number, mtu)

    def _keep_kernel_out(self) -> None:
        if self._guard.ensure():
            self._step(f"nft: table netdev {self._guard.table}, because {self._guard.reason}")

    def _release(self) -> None:
        self._locked = False
        self.left = [line for line in self._instance.release() if line.startswith("left")]

    def _close_engine(self) -> None:
        try:
            self.engine.statistics()  # a last look while its sockets are there
        finally:
            self.engine.close()
        self.final_statistics = self.engine.statistics()

    def close(self) -> None:
        """Undo everything, last first. May be called twice."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
