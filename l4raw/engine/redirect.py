"""The XDP program of an engine, and the tables that it shares with the helper.

Lives here: which tables are maps of the program, and the meaning of its other
maps. Must not live here: sockets, threads (afxdp.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from l4raw.engine.layout import Sizes
from l4raw.engine.memory import Memory, anonymous
from l4raw.wire.abi import HALVES, PROBES, SLOTS_EACH, STRIPES, WORDS_EACH
from l4raw.xdp import XdpLink, XdpProgram, XskMap, XskSocket
from l4raw.xdp.native import bpf_object

QUEUES: Final = 64
"""As in the program: sockets of arm a begin at a * QUEUES."""
_FLOW: Final = 64
_MAPS: Final = {"control": ".data.control"}
"""Table and map, where their names differ."""


class Program(NamedTuple):
    """One of native/bpf/, and the tables that are its maps."""

    name: str
    tables: tuple[str, ...]


REDIRECT: Final = Program("redirect", ("control", "flows", "policies", "places"))
"""Everything of ours goes to the sockets."""
FORWARD: Final = Program(
    "forward",
    (
        *REDIRECT.tables,
        *("next_hops", "services", "backends", "rings", "ranges", "queue", "traffic"),
        *("stripes", "cursors", "usage", "heads"),
    ),
)
"""The kernel path: it sends frames of known flows itself, and most of new ones under DSR and NAT."""


def possible_cpus() -> int:
    """How many CPUs a kernel path may run on: one more than the highest number of /sys's list."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    return int(text.strip().replace(",", "-").rsplit("-", 1)[-1]) + 1


class Redirect:
    """The program, loaded; attached by `attach`."""

    def __init__(self, sizes: Sizes, program: Program = REDIRECT) -> None:
        """Raises `XdpError` when the kernel refuses it, or it was not compiled."""
        entries = {
            "flows": -(-sizes.flow_memory // _FLOW),
            "places": HALVES * (sizes.places + PROBES - 1),
            "next_hops": sizes.next_hops + 1,
            "heads": -(-sizes.next_hops // WORDS_EACH),
            "services": HALVES * sizes.services,
            "backends": HALVES * sizes.backends,
            "rings": -(-HALVES * sizes.ring_slots // SLOTS_EACH),
            "ranges": HALVES * sizes.ranges,
            "queue": sizes.writers,
            "traffic": sizes.writers * sizes.backends,
            "stripes": -(-STRIPES // WORDS_EACH),
            "cursors": -(-sizes.services // WORDS_EACH),
            "usage": sizes.services,
        }
        self._tables = program.tables
        self._program = XdpProgram(bpf_object(program.name), f"l4raw_{program.name}", entries)
        self._maps = self._program.maps
        self.links: list[XdpLink] = []
        """One an interface, in the order of attach()."""

    def allocate(self, name: str, size: int) -> Memory:
        """Memory for a table; see l4raw/engine/memory.py."""
        if name not in self._tables:
            return anonymous(name, size)
        return self._maps[_MAPS.get(name, name)].mapping(size)

    def redirect_to(self, arm: int, socket: XskSocket) -> None:
        """What arrives on the socket's queue goes to it from now on, if the tables say so."""
        xsks = self._maps["xsks"]
        assert isinstance(xsks, XskMap)
        xsks.update(arm * QUEUES + socket.queue, socket)

    def attach(self, interface: str) -> None:
        """Attach in native mode, by a link that ends with this process. Raises `XdpError`."""
        self.links.append(self._program.attach(interface, "native"))

    def detach(self) -> None:
        """Take the program off all interfaces. May be called twice."""
        while self.links:
            self.links.pop().close()

    def close(self) -> None:
        """Detach and close. The tables stay, for whoever holds them."""
        self.detach()
        self._program.close()
