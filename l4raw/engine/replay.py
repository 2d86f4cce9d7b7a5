"""Replay: frames from a list or a capture file, and a list of what was sent.

It is what tests and `explain` run the core on: no socket, no privilege, and
the same frames always give the same result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from l4raw.engine.base import Received


class Sent(NamedTuple):
    """A frame that was forwarded."""

    frame: bytes
    arm: int


class ReplayEngine:
    """Hands out each of `frames`, all received on `arm`, and keeps what is sent."""

    def __init__(self, frames: Iterable[bytes], arm: int = 0, csum_start: int = 0, segment: int = 0) -> None:
        self._frames = iter(frames)
        self._arm = arm
        self._csum_start, self._segment = csum_start, segment
        self.sent: list[Sent] = []

    def open(self) -> Self:
        """Nothing to open."""
        return self

    def poll(self, timeout: float) -> Iterator[Received]:
        """The frames that are left; never waits."""
        for frame in self._frames:
            buffer = memoryview(bytearray(frame))
            yield Received(buffer, self._arm, self._csum_start, buffer, self._segment)

    def send(self, received: Received, arm: int, made: bytes | None = None) -> bool:
        """Keep a copy in `sent`."""
        self.sent.append(Sent(made or bytes(received.frame), arm))
        return True

    def close(self) -> None:
        """Nothing to close."""

    def statistics(self) -> dict[str, int]:
        """None of its own."""
        return {}


class LinkTypeError(ValueError):
    """A capture of something else than Ethernet."""


def read_capture(path: Path) -> Iterator[bytes]:
    """The frames of a pcap or pcapng file with Ethernet frames.

    Raises `OSError` when it cannot be read, `ValueError` when it is no capture,
    `LinkTypeError` when it holds something else than Ethernet.
    """
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapReader

    ethernet = 1  # LINKTYPE_ETHERNET
    try:
        with RawPcapReader(str(path)) as reader:
            linktype = getattr(reader, "linktype", ethernet)
            for data, metadata in reader:
                if getattr(metadata, "linktype", linktype) != ethernet:
                    raise LinkTypeError("this capture has frames that are not Ethernet")
                yield data
    except Scapy_Exception as error:
        raise ValueError(f"this is no pcap or pcapng file: {error}") from error
