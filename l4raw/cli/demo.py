"""`l4raw up --demo`: a client, a balancer and three web servers, each in a network namespace of its own.

The namespaces belong to this process and go with it, also by SIGKILL.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from l4raw.cli.state import State
from l4raw.control.config import parse
from l4raw.control.settings import Config


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
            if not (state.quiet or state.json):
                click.echo(
                    f"try it, in another terminal:\n"
                    f"  nsenter -t {network.client.pid} -n curl http://{network.vip}/",
                    err=True,
                )
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
