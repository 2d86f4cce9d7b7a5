"""Warnings about a configuration that is valid and may still disappoint.

Pure: what is known about the host is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from l4raw.control.errors import Problem
from l4raw.control.netlink import Interface
from l4raw.control.settings import Config
from l4raw.control.source import Finding, Source
from l4raw.core.model import Backend, Mode

Network = IPv4Network | IPv6Network

_CONDITIONAL = (
    "nat with one interface: clients in the subnet of the backends, if there are any, get no answer"
)


def one_arm_nat_warnings(
    config: Config, subnets_of_interface: Sequence[Network] | None, source: Source | None = None
) -> list[Problem]:
    """L4R-141 for each nat service of a one-arm balancer whose backends may answer clients directly.

    `subnets_of_interface` are the networks of the interface's addresses. With them, only backends inside one
    of them count: those behind a router send their replies to the router. None: not known, so the warning is
    conditional. `source` adds the place in the file.
    """
    if len(config.lb.interfaces) != 1:
        return []
    problems = []
    for index, service in enumerate(config.services):
        if service.mode is not Mode.NAT:
            continue
        if subnets_of_interface is None:
            what = _CONDITIONAL
        else:
            what = _precise(service.backends, subnets_of_interface)
        if not what:
            continue
        text = f'service "{service.name}": {what}'
        if source is None:
            problems.append(Problem("L4R-141", text, f'service "{service.name}"'))
        else:
            problems.append(source.problem(Finding("L4R-141", ("service", index, "mode"), text)))
    return problems


def vip_warnings(config: Config, interfaces: Sequence[Interface]) -> list[Problem]:
    """L4R-142 for each VIP that is in no subnet of the interfaces; none if they have no address at all."""
    problems: dict[bytes, Problem] = {}
    for service in config.services:
        if outside := subnets_without(service.vip, interfaces):
            names = ", ".join(interface.name for interface in interfaces)
            what = f"the VIP {ip_address(service.vip)} is in no subnet of {names}: {outside}"
            problems.setdefault(service.vip, Problem("L4R-142", what, f'service "{service.name}"'))
    return list(problems.values())


def snat_warnings(config: Config, interfaces: Sequence[Interface]) -> list[Problem]:
    """L4R-155 for each SNAT address that is in no subnet of the backends' interface, if it has any."""
    problems: dict[bytes, Problem] = {}
    arm = interfaces[-1]
    for service in config.services:
        for each in service.snat:
            if outside := subnets_without(each.address, [arm]):
                text = ip_address(each.address)
                what = f"the SNAT address {text} is in no subnet of {arm.name}: {outside}"
                problems.setdefault(each.address, Problem("L4R-155", what, f'service "{service.name}"'))
    return list(problems.values())


def subnets_without(vip: bytes, interfaces: Sequence[Interface]) -> str:
    """The subnets of the interfaces in words, if `vip` is in none of them; else nothing."""
    version = ip_address(vip).version
    subnets = [each for interface in interfaces for each in interface.subnets if each.version == version]
    if any(ip_address(vip) in subnet for subnet in subnets):
        return ""
    return ", ".join(map(str, dict.fromkeys(subnets)))


def _precise(backends: Sequence[Backend], subnets: Sequence[Network]) -> str:
    """A sentence that names the subnets of clients that will not be served; empty if there are none."""
    addresses = [ip_address(backend.address) for backend in backends]
    shared = [
        str(subnet)
        for subnet in subnets
        if any(address.version == subnet.version and address in subnet for address in addresses)
    ]
    if not shared:
        return ""
    return f"nat with one interface: clients in {' or '.join(shared)}, where backends are, get no answer"
