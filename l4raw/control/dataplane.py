"""Which engine moves the frames: the kernel path and AF_XDP where they work, else raw.

Lives here: the choice, and what a failure of AF_XDP means for a person. Must
not live here: how an engine works.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from l4raw.control.egress import Egress
from l4raw.control.errors import L4Error
from l4raw.control.kernel_path import Forwards, KernelPath
from l4raw.control.netlink import Interface, Netlink
from l4raw.control.settings import Config
from l4raw.control.ssh import require_ssh_safe
from l4raw.core.flows import FlowTable
from l4raw.core.hashing import HashKey, hash_key
from l4raw.core.limits import BUCKETS, private
from l4raw.core.model import Flows
from l4raw.core.next_hops import NextHops
from l4raw.core.tables import Arm, Tables
from l4raw.engine.base import Engine
from l4raw.engine.raw import RawEngine
from l4raw.wire.abi import BACKENDS, MAGLEV_SLOTS, SERVICES

if TYPE_CHECKING:
    from l4raw.engine.afxdp import AfXdpEngine
    from l4raw.engine.layout import Sizes

CLIENT_BUCKETS = 8192
"""57,344 clients: 1 MiB."""

AUTO, XDP, AF_XDP, RAW = "auto", "xdp", "af_xdp", "raw"
_TRIED_ON = "x86_64"
"""The machine whose order of memory the kernel path relies on."""


class Dataplane(NamedTuple):
    """An engine and the tables that it works on."""

    name: str
    engine: Engine
    """AF_XDP and XDP: open, with empty tables, so that nothing is redirected yet. Raw: to be opened."""
    tables: Tables
    note: str
    """What a person should know of the choice: copy or zero-copy, or why it is raw."""
    egress: Egress | None = None
    """XDP: its interfaces, tested; to be closed."""


def make(
    config: Config, interfaces: Sequence[Interface], accept_ssh: bool = False, sample: int = 0
) -> Dataplane:
    """The dataplane of the configuration, or what `auto` finds.

    Python decides until `sample` frames were sent, whatever the dataplane, so that they can be shown.

    Raises L4R-203 for an interface that carries SSH, L4R-205 for one with another XDP program, L4R-301
    without the capabilities, L4R-304 where AF_XDP cannot work, L4R-307 for memory that there is not.
    """
    arms = tuple(Arm(interface.name, interface.mac, interface.mtu) for interface in interfaces)
    key = hash_key(os.urandom(32))
    note = ""
    for name in _candidates(config.lb.dataplane):
        try:
            made = _af_xdp(name, config, arms, interfaces, key, accept_ssh, sample)
            return made._replace(note=f"{made.note}; {note}") if note else made
        except L4Error as error:
            if config.lb.dataplane != AUTO:
                raise
            note = f"not {name}: {error.what}"
            if error.code == "L4R-205":
                note += "; raw sees only what that lets pass"
    counts = private(key, _client_buckets(config))
    tables = Tables(arms, _flow_table(config.lb.flow_memory, key), NextHops(), counts=counts)
    return Dataplane(RAW, RawEngine(arms), tables, note)


def _candidates(wanted: str) -> tuple[str, ...]:
    """Before raw: what is tried, in this order.

    Whether interfaces send what is redirected many drivers say only when a program is attached. One that may
    not forward does what that of af_xdp does.
    """
    if wanted == AUTO:
        return (XDP, AF_XDP) if platform.machine() == _TRIED_ON else (AF_XDP,)
    return () if wanted == RAW else (wanted,)


def _af_xdp(
    name: str,
    config: Config,
    arms: Sequence[Arm],
    interfaces: Sequence[Interface],
    key: HashKey,
    accept_ssh: bool,
    sample: int,
) -> Dataplane:
    from l4raw.engine.afxdp import AfXdpEngine, require_mtu
    from l4raw.engine.redirect import FORWARD, REDIRECT

    if name == XDP and (machine := platform.machine()) != _TRIED_ON:
        what = f"on {machine} the kernel path has not been tried: what BPF writes is ordered as on x86-64"
        raise L4Error("L4R-304", what=what, fix="dataplane af_xdp")
    for interface in interfaces:
        require_ssh_safe(interface.name, dataplane_takes_traffic=True, accept=accept_ssh)
    try:
        for interface in interfaces:
            require_mtu(interface.name, interface.mtu)
        sizes, program = _sizes(config, _local_addresses()), FORWARD if name == XDP else REDIRECT
        engine = AfXdpEngine(arms, key, sizes, sample, program).open()
    except OSError as error:
        raise _refusal(error) from error
    try:
        # Some drivers send what is redirected once a program is attached.
        egress = Egress(interfaces) if name == XDP else None
    except BaseException:
        engine.close()
        raise
    return Dataplane(name, engine, engine.tables, _mode(engine), egress)


def _local_addresses() -> int:
    with Netlink() as netlink:
        return len(netlink.local_addresses())


def _sizes(config: Config, local: int) -> Sizes:
    """Room for the configuration and for what follows it: numbers of what is gone are kept.

    `local`: how many addresses this host has.
    """
    from l4raw.engine.layout import Sizes

    services = len(config.services)
    backends = sum(len(service.backends) for service in config.services)
    snats = sum(len(service.snat) for service in config.services)
    tracking = sum(service.flows is Flows.TRACK_CHANGES for service in config.services)
    return Sizes(
        flow_memory=config.lb.flow_memory,
        services=min(SERVICES, services + 64),
        backends=min(BACKENDS, backends + 1024),
        ring_slots=(services + tracking + 4) * MAGLEV_SLOTS,
        client_buckets=_client_buckets(config),
        ranges=2 * sum(len(service.acl.allow + service.acl.deny) + 1 for service in config.services) + 256,
        addresses=2 * services + backends + snats + local + 256,
        snats=snats + 64,
    )


def _client_buckets(config: Config) -> int:
    """1 MiB, if a service limits its clients."""
    limits = [service.limits for service in config.services]
    return CLIENT_BUCKETS if any(each.client_flows or each.client_new_per_s for each in limits) else BUCKETS


def _mode(engine: AfXdpEngine) -> str:
    queues = f"{engine.queues} queue{'s' if engine.queues > 1 else ''}"
    return f"native, {'zero-copy' if engine.zero_copy else 'copy'} mode, {queues}"


def _refusal(error: OSError) -> L4Error:
    """The errno of a failed step as a code; the text is the binding's, which names cause and next step."""
    where = getattr(error, "interface", None) or error.filename
    what, fix = str(error.strerror), _FIXES.get(error.errno or 0, "")
    if operation := getattr(error, "operation", ""):
        cause = getattr(error, "cause", "") or str(error.strerror)
        what = f"{operation}: {cause.splitlines()[0]}"
        fix = fix or getattr(error, "next_step", "")
    match error.errno:
        case errno.EPERM | errno.EACCES:
            code = "L4R-301"
        case errno.EBUSY | errno.EEXIST:
            code = "L4R-205"
        case errno.ENOBUFS | errno.ENOMEM:
            code = "L4R-307"
        case _:
            code = "L4R-304"
    return L4Error(code, what=what, where=where, why=_WHY, fix=fix)


def checks(made: Dataplane, tell: Callable[[Forwards], None], until: ExitStack) -> list[Callable[[], None]]:
    """What a running dataplane wants to be called each second; `until`: the end of it.

    Raises what ends the balancer. `tell` is told in which state the kernel path is, now and, by a thread,
    when it changes.
    """
    engine = made.engine
    if made.name == RAW:
        return []

    def look_at_engine() -> None:
        try:
            engine.look()  # type: ignore[attr-defined]
        except OSError as error:
            raise failed(error) from error

    if made.egress is None:
        return [look_at_engine]
    path = KernelPath(made.egress, engine, tell)  # type: ignore[arg-type]
    until.callback(path.close)
    path.start()
    return [look_at_engine, path.check]


def failed(error: OSError) -> L4Error:
    """What an engine that runs cannot go on after."""
    return L4Error("L4R-306", what=error.strerror or str(error) or repr(error), where=error.filename)


_WHY = "AF_XDP cannot work here as it is; --dataplane raw needs nothing of that, but is slower."
_FIXES = {
    errno.EPERM: "run it as root of the host, not of a user namespace, or give this process what is missing",
    errno.EBUSY: "stop the other program, or use another interface: `ip -d link` shows XDP programs",
    errno.EEXIST: "stop the other program, or use another interface: `ip -d link` shows XDP programs",
    errno.ERANGE: "a smaller MTU on the interface and at its veth peer: `ip link set dev DEVICE mtu 1500`",
}
"""Where the next step of the binding is for who writes programs."""


def _flow_table(memory: int, key: HashKey) -> FlowTable:
    try:
        # A bytearray of this size is zero pages until it is written.
        buffer = bytearray(memory)
    except MemoryError:
        raise L4Error("L4R-307", what=f"no {memory >> 20} MiB for the flow table", where="[lb]") from None
    return FlowTable(buffer, key)
