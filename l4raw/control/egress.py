"""Whether each interface sends what an XDP program redirects to it: test frames, and the drivers' counters.

Nobody tells the program: a frame that the driver does not take is gone, and
counts as sent. So a few test frames are sent in the same way, and the driver is
asked how many it has taken. Must not live here: what follows (kernel_path.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from l4raw.control.netlink import Interface

FRAMES: Final = 4
_COUNTED_S: Final = 0.05
"""So soon a driver has counted what it took; a veth at once."""
_TAKEN: Final = "xdp_(xmit|tx)"
"""By ethtool, frames that came by a redirect: `xdp_xmit` of veth and mlx5, `xdp_tx` of virtio_net."""
_REFUSED: Final = "xdp_(xmit_errors|tx_drops|full|err)"
"""Those for which there was no room, likewise: a load that is too high, and no fault of the interface."""


class Outcome(StrEnum):
    """What becomes of frames that are redirected to an interface."""

    SENT = "sent"
    DROPPED = "dropped"
    UNKNOWN = "cannot be told"


class Trial(NamedTuple):
    """What a test has shown."""

    outcome: Outcome
    why: str = ""
    """More of it, unless they were sent."""

    def __str__(self) -> str:
        return f"{self.outcome} ({self.why})" if self.why else str(self.outcome)


class Counts(NamedTuple):
    """What a driver has counted so far."""

    taken: int
    """Frames; of a driver without a count of redirected ones, all that it has sent."""
    refused: int
    own: bool
    """Whether redirected frames have a counter of their own."""


class DriverCounters:
    """Those of one interface, in the network namespace of the caller."""

    def __init__(self, name: str) -> None:
        from pyroute2.ethtool.ioctl import IoctlEthtool

        self._name = name
        self._ethtool: Any = IoctlEthtool(name)

    def read(self) -> Counts:
        """As they are now: a tenth of a millisecond. Raises `OSError` when the interface has gone."""
        from pyroute2.ethtool.ioctl import EthtoolError

        try:
            found = self._ethtool.get_statistics()
        except (EthtoolError, OSError):  # a driver without any
            found = []
        taken = _named(found, _TAKEN)
        if taken is None:
            return Counts(_sent(self._name), 0, False)
        return Counts(taken, _named(found, _REFUSED) or 0, True)

    def close(self) -> None:
        """Close the socket."""
        self._ethtool.close()


def _named(statistics: Sequence[tuple[str, int]], what: str) -> int | None:
    """The sum of what is counted under such names: as the driver has it of all queues, else of each."""
    for pattern in (f"tx_{what}", f"tx.*_{what}"):
        found = [value for name, value in statistics if re.fullmatch(pattern, name)]
        if found:
            return sum(found)
    return None


def _sent(name: str) -> int:
    """`tx_packets`. Raises `OSError` (ENODEV)."""
    with open("/proc/thread-self/net/dev", encoding="ascii") as lines:
        for line in lines:
            interface, colon, counters = line.rpartition(":")
            if colon and interface.strip() == name:
                return int(counters.split()[9])
    raise OSError(19, "no such interface", name)


class Egress:
    """Tests the interfaces, when asked to, and reads their counters. A thread at a time."""

    def __init__(self, interfaces: Sequence[Interface]) -> None:
        """Loads the program that sends test frames, for which CAP_BPF and CAP_NET_ADMIN are needed."""
        self.interfaces = tuple(interfaces)
        self._counters = [DriverCounters(each.name) for each in interfaces]
        self._frames: Any = None
        self._refused = ""
        from l4raw.engine.egress import TrialFrames

        try:
            self._frames = TrialFrames()
        except OSError as error:
            self._refused = f"no test frame can be sent: {error.strerror or error}".splitlines()[0]
        self.tested = [self.test(number) for number in range(len(interfaces))]
        """What the last test of each has shown."""

    def test(self, number: int) -> Trial:
        """Send test frames through this one and see what its driver makes of them. Some 25 ms."""
        interface, counters = self.interfaces[number], self._counters[number]
        if self._frames is None:
            return Trial(Outcome.UNKNOWN, self._refused)
        try:
            before, began = counters.read(), time.monotonic()
            if not self._frames.send(interface.index, interface.mac, FRAMES):
                return Trial(Outcome.UNKNOWN, "a signal came while a test frame was sent")
            sent = time.monotonic()
            while (after := counters.read()).taken - before.taken < FRAMES and not _late(sent):
                if after.refused > before.refused:
                    return Trial(Outcome.UNKNOWN, "its queue had no room for a test frame")
                time.sleep(0.001)
            taken = after.taken - before.taken
            if after.own:
                return Trial(Outcome.SENT) if taken else Trial(Outcome.DROPPED, "test frames have vanished")
            if taken < FRAMES:
                return Trial(Outcome.UNKNOWN, "its driver has not counted the test frames")
            # All that it sends is counted in one: were these the test frames, or was there as much to send?
            time.sleep(time.monotonic() - began)
            if counters.read().taken - after.taken < FRAMES:
                return Trial(Outcome.SENT)
            return Trial(Outcome.UNKNOWN, "it sends much else, and its driver counts all as one")
        except OSError as error:
            return Trial(Outcome.UNKNOWN, f"a test frame: {error.strerror or error}".splitlines()[0])

    def counts(self, number: int) -> Counts:
        """What the driver of this one has counted. Raises `OSError` when it has gone."""
        return self._counters[number].read()

    def __str__(self) -> str:
        return ", ".join(
            f"{interface.name} {tested}"
            for interface, tested in zip(self.interfaces, self.tested, strict=True)
        )

    def close(self) -> None:
        """Close the program and the sockets. May be called twice."""
        if self._frames:
            self._frames.close()
        for each in self._counters:
            each.close()


def _late(since: float) -> bool:
    return time.monotonic() - since > _COUNTED_S
