"""What is checked: of each service, whether and how; of each backend, where.

Lives here: values, and the defaults of a service that says nothing. Must not
live here: how a backend is asked (probes.py, vip_probe.py), what its answers
mean (standing.py), when it is asked (health.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from l4raw.core.model import Mode, Service, end
from l4raw.core.tables import BackendEntry, Policy, ServiceEntry
from l4raw.wire.ipv4 import TCP

HANDSHAKE, NONE = "tcp", "none"
TYPES: Final = (HANDSHAKE, NONE)

AT_VIP: Final = frozenset({Mode.DSR_L2, Mode.DSR_IPIP, Mode.DSR_GUE})
"""Modes in which a backend answers in the VIP's name, so that it has to be asked at the VIP. In the others a
client's frame comes to the backend's own address."""


@dataclass(frozen=True, slots=True)
class Check:
    """The table `check` of a service."""

    type: str = HANDSHAKE
    port: int = 0
    """0: the backend's, else the service's."""
    interval: int = 2_000
    """From one check of a backend to the next, in ms."""
    timeout: int = 1_000
    """How long an answer may take, in ms."""
    rise: int = 2
    """Successes in a row that make a backend up."""
    fall: int = 3
    """Failures in a row that make a backend down."""


DEFAULT: Final = Check()


@dataclass(frozen=True, slots=True)
class Target:
    """One backend of one service, and how it is checked."""

    number: int
    """Of the backend, in the policy."""
    service: str
    backend: str
    address: bytes
    """The backend's own."""
    asked: bytes
    """The destination of a check: the VIP, or the backend's own address."""
    port: int
    check: Check
    tunnel: tuple[ServiceEntry, BackendEntry] | None = None
    """Of a service with tunnels: what a packet to this backend is enclosed by."""

    @property
    def at_vip(self) -> bool:
        """Whether the VIP is asked."""
        return self.asked != self.address


def check_of(service: Service, configured: Check | None) -> Check | None:
    """How the backends of a service are checked; None: they are not."""
    if configured is None:
        return DEFAULT if service.protocol == TCP else None
    return None if configured.type == NONE else configured


def port_of(check: Check, service_port: int, backend_port: int) -> int:
    """Where a backend is asked; 0: nowhere, for it listens on every port."""
    return check.port or backend_port or service_port


def targets(policy: Policy, checks: Mapping[str, Check]) -> Iterator[Target]:
    """Everything that is checked. `checks`: what services say of it, by their names."""
    for entry in policy.services.values():
        service = entry.service
        check = check_of(service, checks.get(service.name))
        for each in policy.backends:
            if check is None or each is None or each.service != entry.number:
                continue
            backend = each.backend
            port = port_of(check, service.port, backend.port)
            if port and backend in service.backends:
                asked = service.vip if service.mode in AT_VIP else backend.address
                names, tunnel = (
                    (service.name, backend.name),
                    (entry, each) if service.mode.is_tunnel else None,
                )
                yield Target(each.number, *names, backend.address, asked, port, check, tunnel)


def describe(service: Service, configured: Check | None) -> str:
    """How a service is checked, in words."""
    check = check_of(service, configured)
    if check is None:
        return "none, as `check` says" if configured else "none: UDP has no handshake"
    ports = {port_of(check, service.port, backend.port) for backend in service.backends}
    if ports == {0}:
        return "none: port 0 is every port, and `check` names none"
    where = "each backend"
    if service.mode in AT_VIP:
        way = "through each backend's tunnel" if service.mode.is_tunnel else "at each backend's MAC address"
        where = f"{end(service.vip, max(ports))} {way}"
    elif check.port:
        where += f", port {check.port}"
    often = f"every {duration(check.interval)}, timeout {duration(check.timeout)}"
    return f"TCP handshake with {where}, {often}; down after {check.fall} failures, up after {check.rise}"


def duration(milliseconds: int) -> str:
    """`2s` or `1500ms`, as it would be written in the file."""
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"
