"""The loop of a running balancer, on frames of a test's own: whose errors are whose."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from l4raw.control.balancer import Balancer
from l4raw.control.config import parse
from l4raw.control.errors import L4Error
from l4raw.control.guard import Guard
from l4raw.control.netlink import Interface
from l4raw.core.tables import Policy
from l4raw.engine.base import Received
from l4raw.engine.replay import ReplayEngine
from l4raw.wire.abi import DROP_FRAGMENT

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


def test_frames_that_wait_at_the_end_are_counted_too(balancer: Balancer) -> None:
    """Else the counters of a balancer that has stopped were fewer than the frames that it took."""
    later = Ether(dst="00:00:00:00:00:00") / IP(dst="10.77.0.100", proto=17, frag=1) / Raw(bytes(32))
    balancer.engine = ReplayEngine([bytes(later)])
    balancer.tables.install(Policy({}, frozenset({bytes([10, 77, 0, 100])}), (None,), (None,)))
    balancer.run(stop_after(1))
    assert sum(balancer.tables.total_verdicts()) == 0
    balancer.close()
    assert balancer.tables.total_verdicts()[DROP_FRAGMENT] == sum(balancer.tables.total_verdicts()) == 1


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
