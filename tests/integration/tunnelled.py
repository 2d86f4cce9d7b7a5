"""What backends behind a tunnel need in a test: a decapsulator of the kernel's, and a wider segment.

Lives here: how they are put there. Must not live here: pytest, scapy and what a test expects; a guest
runs this too.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from l4raw.netns import Host, Topology

SOURCE: Final = Path(__file__).with_name("decapsulate.bpf.c")


def compiled(folder: Path) -> Path:
    """The decapsulator as an object file in this folder. Raises CalledProcessError; clang has said why."""
    target = folder / "decapsulate.o"
    found = subprocess.run(["cc", "-print-multiarch"], capture_output=True, text=True, check=True)
    include = f"-I/usr/include/{found.stdout.strip()}"
    argv = ["clang", "-O2", "-g", "-target", "bpf", include, "-c", str(SOURCE), "-o", str(target)]
    subprocess.run(argv, check=True)
    return target


def decapsulate(backend: Host, program: Path) -> None:
    """Have what comes in by eth0 taken out of its tunnel; a capture there is before that."""
    backend.run(["tc", "qdisc", "add", "dev", "eth0", "clsact"])
    load = ["bpf", "da", "obj", str(program), "sec", "tc"]
    backend.run(["tc", "filter", "add", "dev", "eth0", "ingress", *load])


def widen(network: Topology) -> None:
    """The backends' segment takes packets of 1,600 bytes, where the network has two arms."""
    switch = next(host for host in network.hosts if host.name == "switch")
    for host in (network.balancer, *network.backends):
        interface = host.links[-1].interface
        switch.ip(f"link set {host.name}-{interface} mtu 1600")
        host.ip(f"link set {interface} mtu 1600")
    switch.ip("link set br-backends mtu 1600")
