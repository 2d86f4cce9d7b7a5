"""The sink, native/bpf/sink.bpf.c, on an interface of a host.

Lives here: attaching it and reading its counters. Must not live here: what was sent (xdp_load.py).
"""

from __future__ import annotations

import struct
import time
from types import TracebackType
from typing import Final, NamedTuple, Self

from l4raw.netns import Host

from l4raw.xdp import XdpProgram
from l4raw.xdp.host import rx_queues
from l4raw.xdp.native import bpf_object
from tests.bench.histogram import BUCKETS, Histogram

QUIET_S: Final = 0.1
"""When nothing has come for so long, the queues in front of the sink are empty."""
CLASS: Final = struct.Struct(f"=QQQ{BUCKETS}Q{BUCKETS}Q")
"""struct class: frames, last, largest gap, gaps, delays."""
_KEY: Final = bytes(4)


class Arrived(NamedTuple):
    """What came of one class of flows."""

    frames: int
    largest_gap: int
    """ns between two frames in turn."""
    gaps: Histogram
    delays: Histogram
    """From the generator to the sink."""


class Sink:
    """Drops and counts the generator's frames on an interface. A context manager.

    Raises ValueError when the interface has several RX queues, `XdpError` when it cannot be attached.
    """

    def __init__(self, host: Host, interface: str = "eth0") -> None:
        with host.enter():
            if (queues := rx_queues(interface)) not in (None, 1):
                raise ValueError(f"{interface} has {queues} RX queues; the sink counts on one")
            self._program = XdpProgram(bpf_object("sink"), "sink")
            try:
                self._link = self._program.attach(interface)
            except BaseException:
                self._program.close()
                raise
        self._map = self._program.maps[".data.classes"]

    def reset(self) -> None:
        """All counters to 0."""
        self._map.put(_KEY, bytes(self._map.value_size))

    def read(self) -> tuple[Arrived, Arrived]:
        """Known flows, new flows."""
        known, new = CLASS.iter_unpack(self._map.get(_KEY) or b"")
        return _arrived(known), _arrived(new)

    def read_when_quiet(self) -> tuple[Arrived, Arrived]:
        """The same, when nothing comes any more."""
        seen = self.read()
        while True:
            time.sleep(QUIET_S)
            now = self.read()
            if [each.frames for each in now] == [each.frames for each in seen]:
                return now
            seen = now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()
        self._program.close()


def _arrived(values: tuple[int, ...]) -> Arrived:
    frames, _, largest_gap, *buckets = values
    return Arrived(frames, largest_gap, Histogram(buckets[:BUCKETS]), Histogram(buckets[BUCKETS:]))
