"""What `up` is going to do to the host, in words, before it does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from l4raw.control.guard import forwards, table_name
from l4raw.control.instance import interface_file
from l4raw.control.lock import INTERFACES
from l4raw.control.netlink import Interface
from l4raw.control.seed import FILE
from l4raw.control.settings import Config
from l4raw.wire.ethernet import format_mac


def describe(
    config: Config, interfaces: Sequence[Interface], instance: str, run_dir: Path, state_dir: Path
) -> Iterator[str]:
    """A line for each thing. Looks at the host, changes nothing."""
    chosen = " (auto: this version has no other)" if config.lb.dataplane == "auto" else ""
    yield f"plan for instance {instance}, dataplane raw{chosen}:"
    for service in config.services:
        backends = ", ".join(
            f"{b.name} {b}" + (f" weight {b.weight}" if b.weight != 1 else "") for b in service.backends
        )
        yield f"  service  {service.name} {service} {service.mode} {service.scheduler}: {backends}"
    yield f"+ lock     {run_dir / instance}"
    for interface in interfaces:
        yield f"+ lock     {run_dir / INTERFACES / interface_file(interface)}, for {interface.name}"
    for interface in interfaces:
        yield f"+ listen   packet socket on {interface.name}; the host still gets every frame"
    for vip in dict.fromkeys(service.vip for service in config.services):
        yield f"+ ARP      {IPv4Address(vip)} is at {format_mac(interfaces[0].mac)}, on {interfaces[0].name}"
    if any(forwards(interface.name) for interface in interfaces):
        yield f"+ nft      table netdev {table_name(instance)}: the kernel's copy of our frames is dropped"
    if config.lb.ring_seed is None and not (state_dir / FILE).exists():
        yield f"+ file     {state_dir / FILE}, made once and kept"
    yield "all but kept files ends with this process, however it ends"
