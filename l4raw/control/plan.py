"""What `up` is going to do to the host, in words, before it does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from l4raw.control.advice import subnets_without
from l4raw.control.checks import describe as describe_check
from l4raw.control.checks import duration
from l4raw.control.dataplane import AUTO, RAW, XDP
from l4raw.control.egress import FRAMES
from l4raw.control.guard import table_name, why_needed
from l4raw.control.instance import interface_file
from l4raw.control.lock import INTERFACES
from l4raw.control.netlink import Interface
from l4raw.control.seed import FILE, is_kept
from l4raw.control.settings import Config
from l4raw.control.vips import snat_addresses
from l4raw.core.model import Flows, Full, Mode, Service
from l4raw.wire.ethernet import EXPERIMENTAL, format_mac

_SHOWN: Final = 3
"""Networks of an access list that are named."""


class Step(NamedTuple):
    """One thing that is in force or is going to be made."""

    kind: str
    what: str


def steps(
    config: Config, interfaces: Sequence[Interface], instance: str, run_dir: Path, state_dir: Path
) -> Iterator[Step]:
    """All of the plan. Looks at the host, changes nothing."""
    yield Step("instance", instance)
    wanted = config.lb.dataplane
    yield Step("dataplane", wanted)
    for service in config.services:
        backends = ", ".join(
            f"{b.name} {b}" + (f" weight {b.weight}" if b.weight != 1 else "") for b in service.backends
        )
        text = f"{service.name} {service} {service.mode} {service.scheduler}: {backends}"
        yield Step("service", "; ".join((text, *_besides(service))))
        how = describe_check(service, config.checks.get(service.name))
        yield Step("check", f"{service.name}: {how}")
    yield Step("lock", f"{run_dir / instance}")
    for interface in interfaces:
        yield Step("lock", f"{run_dir / INTERFACES / interface_file(interface)}, for {interface.name}")
    for interface in interfaces:
        if wanted != RAW:
            takes = (
                "takes what is for a VIP or SNAT address, or a NAT reply (that it can is not tried before)"
            )
            yield Step("attach", f"XDP program on {interface.name}: {takes}")
        if wanted in (AUTO, XDP):
            what = f"{FRAMES} frames out of {interface.name}, from and to {format_mac(interface.mac)}"
            yield Step("test", f"{what}, EtherType 0x{EXPERIMENTAL:x}: does it send what XDP redirects to it")
        if wanted == AUTO:
            yield Step("or", f"where that cannot be, a packet socket on {interface.name}")
        if wanted == RAW:
            yield Step("listen", f"packet socket on {interface.name}; the host still gets every frame")
    for vip in dict.fromkeys(service.vip for service in config.services):
        mac, name = format_mac(interfaces[0].mac), interfaces[0].name
        outside = subnets_without(vip, interfaces)
        far = f"; outside of {outside}: needs a route here" if outside else ""
        yield Step("ARP" if len(vip) == 4 else "ND", f"{ip_address(vip)} is at {mac}, on {name}{far}")
    for address in snat_addresses(config):
        mac, name = format_mac(interfaces[-1].mac), interfaces[-1].name
        outside = subnets_without(address, interfaces[-1:])
        far = f"; outside of {outside}: needs a route here" if outside else ""
        kind = "ARP" if len(address) == 4 else "ND"
        yield Step(kind, f"SNAT address {ip_address(address)} is at {mac}, on {name}{far}")
    if why_needed(config.lb.interfaces, config.services):
        yield Step("nft", f"table netdev {table_name(instance)}: the kernel's copy of our frames is dropped")
    if config.lb.ring_seed is None and not is_kept(state_dir):
        yield Step("file", f"{state_dir / FILE}, made once and kept")


def _besides(service: Service) -> Iterator[str]:
    """What a service says beside its backends, where that is not the default."""
    if service.snat:
        yield f"source {', '.join(map(str, service.snat))}"
    if service.mode.is_tunnel:
        tunnel = service.tunnel
        source = ip_address(tunnel.source) if tunnel.source else "the kernel's choice"
        port = f", UDP port {tunnel.port}" if service.mode is Mode.DSR_GUE else ""
        yield f"outer source {source}{port}, TTL {tunnel.ttl}"
    if service.mss_clamp:
        yield f"MSS {service.mss_clamp} at most"
    for name, prefixes in (("allowed", service.acl.allow), ("denied", service.acl.deny)):
        if prefixes:
            shown = ", ".join(f"{ip_address(address)}/{length}" for address, length in prefixes[:_SHOWN])
            yield f"{name} {shown}" + (
                f" and {len(prefixes) - _SHOWN} more" if len(prefixes) > _SHOWN else ""
            )
    if limits := [f"{name} {value}" for name, value in asdict(service.limits).items() if value]:
        yield f"limits {', '.join(limits)}"
    if service.affinity:
        yield f"affinity {duration(service.affinity)}"
    if service.full is not Full.REFUSE_NEW:
        yield f"full {service.full}"
    if service.flows is not Flows.TRACK:
        yield f"flows {service.flows}"


def describe(planned: Sequence[Step]) -> Iterator[str]:
    """The plan for people, line by line."""
    instance, chosen, *rest = planned
    yield f"plan for instance {instance.what}, dataplane {chosen.what}:"
    for kind, what in rest:
        yield f"{' ' if kind in ('service', 'check') else '+'} {kind:8} {what}"
    yield "all but kept files ends with this process, however it ends"
