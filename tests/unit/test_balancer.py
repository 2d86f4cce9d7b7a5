"""The loop of a running balancer, on frames of a test's own: whose errors are whose."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l4raw.control.balancer import Balancer
from l4raw.control.config import parse
from l4raw.control.errors import L4Error
from l4raw.control.guard import Guard
from l4raw.control.netlink import Interface
from l4raw.engine.base import Received
from l4raw.engine.replay import ReplayEngine

TOML = """\
[lb]
interfaces = ["lo"]
flow_memory = "1MiB"
dataplane = "raw"
[[service]]
name = "web"
vip = "10.77.0.100:80/tcp"
mode = "dsr-l2"
backends = [{ name = "b1", address = "10.77.0.11" }]
"""


class Broken(ReplayEngine):
    """Its first poll raises."""

    def __init__(self, error: OSError) -> None:
        super().__init__([])
        self._error = error

    def poll(self, timeout: float) -> Iterator[Received]:
        raise self._error


@pytest.fixture
def balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Balancer:
    monkeypatch.setattr(Guard, "ensure", lambda self: False)
    config = parse(TOML, Path("l4raw.toml"), "-c").config
    lo = Interface("lo", 1, bytes(6), True, 65536, ())
    made = Balancer(config, [lo], "test", tmp_path, b"seed")
    made.open()
    return made


def stop_after(rounds: int) -> Callable[[], bool]:
    left = iter(range(rounds))
    return lambda: next(left, None) is None


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(100, "receiving: Network is down", "eth0"), "receiving: Network is down"),
        (OSError("the engine is gone"), "the engine is gone"),
        (OSError(), "OSError()"),
    ],
)
def test_what_the_engine_cannot_go_on_after_is_told_in_words(
    balancer: Balancer, error: OSError, what: str
) -> None:
    balancer.engine = Broken(error)
    with pytest.raises(L4Error) as caught:
        balancer.run(stop_after(1))
    assert (caught.value.code, caught.value.what, caught.value.where) == ("L4R-306", what, error.filename)


def test_an_error_beside_the_packet_path_is_not_taken_for_one_of_it(balancer: Balancer) -> None:
    balancer.engine = ReplayEngine([])

    def full() -> None:
        raise OSError(28, os.strerror(28))

    with pytest.raises(OSError, match="No space left"):
        balancer.run(stop_after(1), full)
