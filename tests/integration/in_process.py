"""The balancer in a thread of the test, so that its tables and its engine can be reached while frames pass.

Lives here: starting and stopping it, and where its frames are. Must not live here: what a test expects of
the traffic; `l4raw up` as a process of its own is in running.py.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from l4raw.netns import Topology

from l4raw.control.balancer import Balancer
from l4raw.control.config import parse
from l4raw.control.inspection import inspect
from l4raw.engine.afxdp import AfXdpEngine
from l4raw.xdp import FrameError
from tests.integration.capture import wait_for

DEADLINE = 10.0
SEED = b"ring seed of the tests"


@contextmanager
def balancer_in_this_process(network: Topology, toml: str, folder: Path) -> Iterator[Balancer]:
    """The balancer in a thread, so that the tables can be reached while frames pass."""
    config = parse(toml, folder / "l4raw.toml", "-c").config
    stop, ready = threading.Event(), threading.Event()
    made: list[Balancer] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with network.balancer.enter():
                interfaces = inspect(config)
                with Balancer(config, interfaces, "test", folder / "run", SEED).start() as balancer:
                    made.append(balancer)
                    ready.set()
                    balancer.run(stop.is_set)
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        assert ready.wait(DEADLINE)
        assert not failures, failures
        yield made[0]
    finally:
        stop.set()
        thread.join(DEADLINE)
    assert not thread.is_alive()
    assert not failures, failures


def assert_no_frame_leaked(engine: AfXdpEngine) -> None:
    """All are free or with the kernel to be received into; none is with Python, or still to be sent."""

    def settled() -> bool:
        try:
            return all(each.tx == each.rx == 0 for each in engine.check_frames())
        except FrameError:  # counted while something moved; a leak stays
            return False

    wait_for(settled, "every frame is free or may be received into")
    engine.check_frames()
