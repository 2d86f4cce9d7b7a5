"""The generator, native/bpf/generator.bpf.c: what to send, and the process that sends it.

    python -m l4raw.bench.generator INTERFACE DST_MAC DST_IP PORT

That runs inside the client's namespace, as root. It takes an `Order` a line, as JSON, and answers each with
`Sent`. A process for all orders: loading the programs takes longer than a turn. Lives here: both ends of it.
Must not live here: what became of the frames (load.py).
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any, Final, NamedTuple, Self

from l4raw.bench.frames import (
    FIRST_KNOWN,
    FIRST_NEW,
    KNOWN,
    KNOWN_PORT_BITS,
    KNOWN_PORTS,
    LENGTH,
    MOST_KNOWN,
    MOST_NEW,
    NEW,
    NEW_PORT_BITS,
    NEW_PORTS,
    Ends,
    Template,
    datagram,
    segment,
)
from l4raw.engine.readable import readable
from l4raw.wire import ipv4, tcp
from l4raw.wire.ethernet import parse_mac
from l4raw.xdp import XdpProgram
from l4raw.xdp.native import bpf_object

TICKS: Final = 1024
"""A nanosecond."""
BURST: Final = 64
"""Frames that it catches up with at once, when it was late."""
MARGIN_S: Final = 0.03
"""After the load, until a signal ends the call: what the kernel takes to begin."""
_REPEAT: Final = (1 << 31) - 1
"""Frames a call, attempts included: never reached. Several calls would make gaps of 24 ms."""
_STREAM: Final = struct.Struct("=64sII64sIIQQQQIIII")
_CONFIG: Final = struct.Struct(f"={_STREAM.size}s{_STREAM.size}sQII")
STATE: Final = struct.Struct("=QQQ5Q5Q")
_KEY: Final = bytes(4)


class Stream(NamedTuple):
    """Frames of some flows."""

    kind: int = KNOWN
    """KNOWN: they go round for ever. NEW: each comes once."""
    rate: float = 0
    """Frames/s. A flood has no rate."""
    flows: int = 1000
    """Of a NEW stream it does not count."""
    frames: int = 1
    """Of each flow in its turn, one after the other."""
    opens: bool = False
    """TCP: the first one is a SYN."""
    start: int = 0
    """The number of the first flow; a NEW stream that goes on where another one ended has new flows."""


class Order(NamedTuple):
    """What to send, and for how long."""

    streams: Sequence[Stream]
    """One of each kind at most."""
    seconds: float
    flood: bool = False
    """As fast as the CPU makes frames, of the only stream, and without time stamps."""
    protocol: int = ipv4.UDP
    burst: int = BURST
    """How many frames it may be behind and catch up with at once; others are left out."""


class Sent(NamedTuple):
    """What the generator did. Frames handed to the interface; what became of them others count."""

    known: int
    new: int
    left_out: int
    """Frames that were due while the generator did not run, because it was late by more than BURST."""
    attempts: int
    """Calls of the program: seconds * 1e9 / attempts is what a frame costs that is not sent yet."""
    seconds: float


def pack(ends: Ends, interface: int, order: Order) -> bytes:
    """The program's `struct config`. Raises ValueError for what there are no addresses for."""
    packed = [bytes(_STREAM.size)] * 2
    for stream in order.streams:
        if stream.frames < 1 or not 1 <= stream.flows <= MOST_KNOWN:
            raise ValueError(f"a flow has a frame, and there are {MOST_KNOWN} known flows at most")
        if stream.kind == NEW and stream.rate * order.seconds > MOST_NEW * stream.frames:
            raise ValueError(f"at most {MOST_NEW} new flows")
        packed[stream.kind] = _pack(ends, stream, order)
    flooding = order.streams[0].kind if order.flood else 0
    return _CONFIG.pack(*packed, round(order.seconds * TICKS * 1e9), interface, flooding)


def _pack(ends: Ends, stream: Stream, order: Order) -> bytes:
    interval = round(TICKS * 1e9 / stream.rate) if stream.rate else 0
    first, further = _templates(ends, stream, order.protocol)
    known = stream.kind == KNOWN
    flows = stream.flows if known else MOST_NEW
    return _STREAM.pack(
        *first, *further, flows, stream.frames, interval, interval * order.burst,
        int.from_bytes(FIRST_KNOWN if known else FIRST_NEW),
        *((KNOWN_PORTS, KNOWN_PORT_BITS) if known else (NEW_PORTS, NEW_PORT_BITS)), 0,
    )  # fmt: skip


def _templates(ends: Ends, stream: Stream, protocol: int) -> tuple[Template, Template]:
    if protocol == ipv4.UDP:
        return (datagram(ends, stream.kind),) * 2
    further = segment(ends, tcp.ACK | tcp.PSH, stream.kind)
    return segment(ends, tcp.SYN, stream.kind) if stream.opens else further, further


class Sender:
    """The programs, loaded, for an interface of this thread's namespace. A context manager."""

    def __init__(self, interface: str, dst_mac: bytes, dst: bytes, port: int) -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind((interface, 0))
            self._ends = Ends(sock.getsockname()[4], dst_mac, dst, port)
        self._interface = socket.if_nametoindex(interface)
        self._programs = {name: XdpProgram(bpf_object("generator"), name) for name in ("generate", "flood")}

    def send(self, order: Order) -> Sent:
        """Do it; blocks for a little more than its seconds. Main thread only: SIGALRM ends the call."""
        program = self._programs["flood" if order.flood else "generate"]
        config, state = program.maps[".data.config"], program.maps[".data.state"]
        config.put(_KEY, pack(self._ends, self._interface, order))
        starts = {stream.kind: stream.start for stream in order.streams}
        progress = [number for kind in (KNOWN, NEW) for number in (0, 0, 0, starts.get(kind, 0), 0)]
        state.put(_KEY, STATE.pack(0, 0, 0, *progress))
        signal.signal(signal.SIGALRM, lambda number, _: None)
        signal.setitimer(signal.ITIMER_REAL, order.seconds + MARGIN_S, MARGIN_S)
        start = 0
        # A signal can come too early on a busy machine; the schedule then goes on where it was.
        while not start or time.monotonic_ns() < start + order.seconds * 1e9:
            program.run_live(bytes(LENGTH), _REPEAT)
            found = STATE.unpack(state.get(_KEY) or b"")
            start = found[0]
        signal.setitimer(signal.ITIMER_REAL, 0)
        attempts, known, new = found[2], found[3:8], found[8:13]
        return Sent(known[1], new[1], known[2] + new[2], attempts, order.seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs.values():
            program.close()


class Generator:
    """The process, seen from outside. A context manager.

    `client`: a host of l4raw.netns; `command`: words in front, such as those that choose a CPU. Raises
    RuntimeError with its last words if it ends.
    """

    def __init__(self, client: Any, dst_mac: str, dst: str, port: int, command: Sequence[str] = ()) -> None:
        argv = [*command, sys.executable, "-m", "l4raw.bench.generator", "eth0", dst_mac, dst, str(port)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self._process = client.popen(argv, **pipes)
        self._client = client

    def send(self, order: Order) -> Sent:
        """Have it done."""
        self.begin(order)
        return self.finish()

    def begin(self, order: Order) -> None:
        """Have it done meanwhile; finish() comes before the next one."""
        with suppress(BrokenPipeError):  # its last words say why
            print(json.dumps(order), file=self._process.stdin, flush=True)

    @property
    def done(self) -> bool:
        """Whether what was begun has ended."""
        return bool(readable(self._process.stdout.fileno(), timeout=0))

    def finish(self) -> Sent:
        """Wait until it is done."""
        if not (said := self._process.stdout.readline()):
            said, errors = self._process.communicate()
            raise RuntimeError(f"generator: {errors.strip() or f'exit code {self._process.returncode}'}")
        return Sent(*json.loads(said))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.end(self._process)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            pipe.close()


def main() -> None:
    """Parse the command line; take orders until there are no more."""
    interface, dst_mac, dst, port = sys.argv[1:]
    try:
        with Sender(interface, parse_mac(dst_mac), IPv4Address(dst).packed, int(port)) as sender:
            for line in sys.stdin:
                streams, *more = json.loads(line)
                print(json.dumps(sender.send(Order([Stream(*each) for each in streams], *more))), flush=True)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
