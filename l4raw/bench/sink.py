"""The sink, native/bpf/sink.bpf.c, on an interface of a host.

Lives here: attaching it and reading its counters. Must not live here: what was sent (load.py).
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from l4raw.bench.histogram import BUCKETS, Histogram
from l4raw.xdp import XdpProgram
from l4raw.xdp.host import rx_queues
from l4raw.xdp.native import bpf_object

if TYPE_CHECKING:
    from l4raw.netns import Host

QUIET_S: Final = 0.1
"""When nothing has come for so long, the queues in front of the sink are empty."""
CONFIG: Final = struct.Struct("=III")
CLASS: Final = struct.Struct(f"=QQQ{BUCKETS}Q{BUCKETS}Q")
"""struct class: frames, last, largest gap, gaps, delays."""
_KEY: Final = bytes(4)


class Arrived(NamedTuple):
    """What came of one class of flows."""

    frames: int
    largest_gap: int
    """ns between two frames in turn; like what follows, only of a timed load."""
    gaps: Histogram
    delays: Histogram
    """From the generator to the sink."""


class Sink:
    """Drops, or answers, and counts the generator's frames on an interface. A context manager.

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
        self._map, self._config = (self._program.maps[f".data.{name}"] for name in ("classes", "config"))
        self.answers = False
        """From the next reset() on, a frame comes back from the backend, a SYN as a SYN-ACK."""
        self.reset()

    def reset(self, timed: bool = True, shift: int = 0) -> None:
        """All counters to 0. `timed`: gaps and delays too, which takes longer than to count.

        `shift`: bytes of the headers in front of a frame, which comes through a tunnel.
        """
        self.expect(shift, timed)
        self._map.put(_KEY, bytes(self._map.value_size))

    def expect(self, shift: int, timed: bool = False) -> None:
        """From now on, frames with so many bytes in front, as for reset(); counters stay."""
        self._config.put(_KEY, CONFIG.pack(shift, timed, self.answers))

    def read(self) -> tuple[Arrived, Arrived]:
        """Known flows, new flows."""
        known, new = CLASS.iter_unpack(self._map.get(_KEY) or b"")
        return _arrived(known), _arrived(new)

    @property
    def frames(self) -> int:
        """Of all classes, since reset()."""
        return sum(fields[0] for fields in CLASS.iter_unpack(self._map.get(_KEY) or b""))

    def read_when_quiet(self, quiet_s: float = QUIET_S) -> tuple[Arrived, Arrived]:
        """The same, when nothing has come for so many seconds."""
        seen = self.read()
        while True:
            time.sleep(quiet_s)
            now = self.read()
            if [each.frames for each in now] == [each.frames for each in seen]:
                return now
            seen = now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()
        self._program.close()


def _arrived(values: tuple[int, ...]) -> Arrived:
    frames, _, largest_gap, *buckets = values
    return Arrived(frames, largest_gap, Histogram(buckets[:BUCKETS]), Histogram(buckets[BUCKETS:]))
