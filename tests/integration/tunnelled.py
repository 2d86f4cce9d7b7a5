"""What backends behind a tunnel need in a test: a decapsulator of the kernel's, and a wider segment.

Lives here: how they are put there. Must not live here: pytest, scapy and what a test expects; a guest
runs this too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from l4raw.netns import Host, Log, Topology, dsr
from l4raw.netns.topology import BACKENDS

SOURCE: Final = Path(__file__).with_name("decapsulate.bpf.c")


def compiled(folder: Path) -> Path:
    """The decapsulator as an object file in this folder. Raises CalledProcessError; clang has said why."""
    target = folder / "decapsulate.o"
    found = subprocess.run(["cc", "-print-multiarch"], capture_output=True, text=True, check=True)
    include = f"-I/usr/include/{found.stdout.strip()}"
    argv = ["clang", "-O2", "-g", "-target", "bpf", include, "-c", str(SOURCE), "-o", str(target)]
    subprocess.run(argv, check=True)
    return target


def decapsulate(backend: Host, program: Path, interface: str = "eth0") -> None:
    """Have what comes in by an interface taken out of its tunnel; a capture there is before that."""
    backend.run(["tc", "qdisc", "add", "dev", interface, "clsact"])
    load = ["bpf", "da", "obj", str(program), "sec", "tc"]
    backend.run(["tc", "filter", "add", "dev", interface, "ingress", *load])


def widen(network: Topology) -> None:
    """The backends' segment takes packets of 1,600 bytes, where the network has two arms."""
    switch = next(host for host in network.hosts if host.name == "switch")
    for host in (network.balancer, *network.backends):
        interface = host.links[-1].interface
        switch.ip(f"link set {host.name}-{interface} mtu 1600")
        host.ip(f"link set {interface} mtu 1600")
    switch.ip("link set br-backends mtu 1600")


@contextmanager
def behind_tunnels(
    mode: str, program: Path, *, crossed: bool = False, version: int = 4, log: Log | None = None
) -> Iterator[Topology]:
    """A two-arm network of this mode, whose three backends take packets out of tunnels.

    `crossed`: the tunnels are of the other IP version, which only the balancer's and the backends' interfaces
    to each other have; see `of_other_version`.
    """
    with dsr(2, 3, version=version, log=log) as built:
        for backend in built.backends:
            decapsulate(backend, program)
        if crossed:
            for host in (built.balancer, *built.backends):
                _add_other_version(host, version)
        yield replace(built, mode=mode)


def of_other_version(toml: str, version: int) -> str:
    """The configuration of a network of this IP version, with its backends' addresses of the other one."""
    return toml.replace(f'"{BACKENDS[version][0]}', f'"{BACKENDS[_other(version)][0]}')


def _add_other_version(host: Host, version: int) -> None:
    """Beside the address of its last interface, the one of the same number."""
    (link,) = host.links[-1:]
    start, length = BACKENDS[_other(version)]
    number = link.addresses[0].partition("/")[0][len(BACKENDS[version][0]) :]
    if version == 4:
        host.sysctls({"net.ipv6.conf.all.disable_ipv6": 0})
    nodad = " nodad" if version == 4 else ""
    host.ip(f"addr add {start}{number}/{length} dev {link.interface}{nodad}")


def _other(version: int) -> int:
    return 10 - version
