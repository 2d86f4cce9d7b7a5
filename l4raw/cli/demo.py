"""`l4raw up --demo`: a client, a balancer and three web servers, each in a network namespace of its own.

The namespaces belong to this process and go with it, also by SIGKILL.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from l4raw.cli.state import State
from l4raw.control.config import parse
from l4raw.control.settings import Config
from l4raw.core.model import Mode

if TYPE_CHECKING:
    from l4raw.netns import Host, Topology

_EVERY_USER = ["0", "0", str(2**32 - 1)]
"""The uid_map of the machine's own user namespace: user_namespaces(7)."""


def run_demo(mode: str, up: Callable[[Config], None], state: State) -> None:
    """Build the network of `mode` ("dsr", "nat") and its servers, and call `up` where the balancer is."""
    from l4raw.netns import Log, NamespaceError, dsr, nat
    from l4raw.netns.servers import web

    build = dsr if mode == "dsr" else nat
    log = Log(silent=state.quiet or state.json)
    try:
        with ExitStack() as stack:
            network = stack.enter_context(build(log=log))
            for backend in network.backends:
                stack.enter_context(web(backend))
            alone = in_user_namespace()
            state.after_ready = guide(network, entering(alone, bool(shutil.which("sudo"))), capture=not alone)
            loaded = parse(
                network.config_toml("80/tcp", lb={"ring_seed": "demo"}),
                Path("demo.toml"),
                "made for the demo",
            )
            stack.enter_context(network.balancer.enter())
            up(loaded.config)
    except NamespaceError as error:
        from l4raw.control.errors import L4Error

        raise L4Error("L4R-301", what=str(error), where="network namespace") from error


def in_user_namespace() -> bool:
    """Whether we are root only in a user namespace that was made for us, as by `unshare -Ur`."""
    if Path("/proc/self/uid_map").read_text().split() == _EVERY_USER:
        return False
    # A container may have one too; then its other terminals are in it, and so is its process 1.
    try:
        return os.stat("/proc/self/ns/user").st_ino != os.stat("/proc/1/ns/user").st_ino
    except OSError:
        return True  # process 1 is not ours to look at


def entering(user_namespace: bool, sudo: bool) -> list[str]:
    """The words before a command that is to run where process {pid} is, typed in another terminal.

    There the user is not root: of the machine with sudo only, and of a user namespace inside it only. The
    ids are kept because such a namespace lets nobody change groups.
    """
    if user_namespace:
        return ["nsenter", "-t", "{pid}", "-U", "-n", "--preserve-credentials"]
    return [*["sudo"] * sudo, "nsenter", "-t", "{pid}", "-n"]


def guide(network: Topology, enter: Sequence[str], capture: bool) -> str:
    """Who is where, and what to type in another terminal. `capture`: tcpdump can be used."""
    return "\n".join(_guide(network, " ".join(enter), capture))


def _guide(network: Topology, enter: str, capture: bool) -> Iterator[str]:
    yield "the hosts, each a network namespace, known by the process that holds it:"
    for host in (network.client, network.balancer, *network.backends):
        owns_vip = host in network.backends and network.mode == Mode.DSR_L2
        yield from _rows(host, f", and {network.vip} on lo" if owns_vip else "")
    yield "try it, in another terminal:"
    yield f"  {enter.format(pid=network.client.pid)} curl http://{network.vip}/"
    if not capture:
        # It gives up root, and for that wants to change its groups.
        yield "tcpdump does not run in a user namespace: --trace 5 shows frames, or run the demo as root"
        return
    yield "with --dataplane xdp, have the kernel forward: NAPI at the other ends of the balancer's wires:"
    switch = next(host for host in network.hosts if host.name == "switch")
    for interface in network.interfaces:
        yield f"  {enter.format(pid=switch.pid)} ethtool -K balancer-{interface} gro on  # switch"
    yield "and watch it, in a third one:"
    for host in (network.client, network.balancer, network.backends[0]):
        for link in host.links:
            tcpdump = f"tcpdump -eni {link.interface} port 80"
            yield f"  {enter.format(pid=host.pid)} {tcpdump}  # {host.name}"


def _rows(host: Host, more: str) -> Iterator[str]:
    """One line for each interface of a host."""
    head = f"{host.name:10}PID {host.pid:<8}"
    for link in host.links:
        yield f"  {head}{link.interface}  {link.mac}  {', '.join(link.addresses)}{more}"
        head, more = " " * len(head), ""
