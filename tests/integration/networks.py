"""Networks with their servers, as more than one module of tests needs them.

Must not live here: a balancer (running.py, starting.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from l4raw.netns import Log, Topology, nat
from l4raw.netns.servers import web


@contextmanager
def nat_with_web() -> Iterator[Topology]:
    """A two-arm NAT network, and on each of its backends a web server."""
    with nat(log=Log(silent=True)) as made, ExitStack() as stack:
        for backend in made.backends:
            stack.enter_context(web(backend))
        yield made
