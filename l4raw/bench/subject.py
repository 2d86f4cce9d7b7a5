"""The balancer under test: a process that gives its place to the bare program and back, when it is told to.

    python -m l4raw.bench.subject CONFIG BACKEND_MAC [CPU]

That runs inside the balancer's namespace, as root. It takes a word a line: `ours`, `bare`, or `none` say who
has the interfaces from now on, `count` nothing; and answers each with its counters, as JSON. So the tables
are filled once, and candidates are a fraction of a second apart. CPU: for Python's threads, once the queues'
have theirs. Lives here: both ends of it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from l4raw.bench.bare import bare
from l4raw.control.balancer import Balancer
from l4raw.control.config import load
from l4raw.control.errors import L4Error
from l4raw.control.inspection import inspect
from l4raw.engine.afxdp import AfXdpEngine
from l4raw.engine.readable import readable
from l4raw.netns.process import temporary_folder
from l4raw.wire.abi import VERDICT_NAMES
from l4raw.wire.ethernet import parse_mac
from l4raw.xdp import XdpLink, XdpProgram

if TYPE_CHECKING:
    from l4raw.netns import Host

OURS, BARE, NONE = "ours", "bare", "none"
_COUNT: Final = "count"
_STDIN: Final = 0
_LINE: Final = 4096
_PATIENCE_S: Final = 10.0


class _Place:
    """Who has the interfaces."""

    def __init__(self, balancer: Balancer, program: XdpProgram, stack: ExitStack) -> None:
        self._arms = [arm.name for arm in balancer.arms]
        self._engine = balancer.engine if isinstance(balancer.engine, AfXdpEngine) else None
        self._bare = program
        self._link: XdpLink | None = None
        stack.callback(self.take, NONE)
        self._ours = self._engine.redirect.links[0].program if self._engine else None

    def take(self, who: str) -> None:
        """Clients are on the first interface: the others keep their program, which frames do not come to."""
        if self._engine:
            self._swap(self._engine, who)
        elif who == BARE and not self._link:
            self._link = self._bare.attach(self._arms[0])
        elif who != BARE and self._link:
            self._link.close()
            self._link = None

    def _swap(self, engine: AfXdpEngine, who: str) -> None:
        redirect = engine.redirect
        if who == NONE:
            redirect.detach()
            return
        if not redirect.links:
            for arm in self._arms:
                redirect.attach(arm)
        assert self._ours
        wanted = self._bare if who == BARE else self._ours
        if redirect.links[0].program is not wanted:
            redirect.links[0].replace(wanted)


def _counters(balancer: Balancer) -> dict[str, Any]:
    verdicts = zip(VERDICT_NAMES, balancer.tables.total_verdicts(), strict=True)
    return {
        "flows": len(balancer.tables.flows),
        "capacity": balancer.tables.flows.capacity,
        "verdicts": {name: count for name, count in verdicts if count},
        "engine": balancer.engine.statistics(),
        "cpu_ns": time.process_time_ns(),
        "note": balancer.dataplane_note,
        "forwards_in_kernel": [str(each) for each in balancer.kernel_path],
    }


def serve(config: Path, backend_mac: bytes, cpu: int | None) -> None:
    """Forward, and do as told, until there are no more words."""
    settings = load(config, {}).config
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder("l4raw-bench-run-"))
        balancer = stack.enter_context(Balancer(settings, inspect(settings), "bench", folder, b"bench"))
        balancer.start()
        if isinstance(balancer.engine, AfXdpEngine):
            for _ in balancer.engine.poll(0):  # starts the queue's thread, which keeps this thread's CPU
                pass
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        out = balancer.arms[-1]
        two_arms = len(balancer.arms) > 1
        index = socket.if_nametoindex(out.name) if two_arms else 0
        place = _Place(balancer, stack.enter_context(bare(backend_mac, out.mac, index)), stack)

        def look() -> bool:
            while readable(_STDIN, timeout=0):
                if not (line := os.read(_STDIN, _LINE)):
                    return True
                if (word := line.decode().strip()) != _COUNT:
                    place.take(word)
                print(json.dumps(_counters(balancer)), flush=True)
            return False

        print(json.dumps(_counters(balancer)), flush=True)
        balancer.run(look)


class Subject:
    """The process, seen from outside. A context manager.

    `host`: of the balancer; `command`: words in front, such as those that choose a CPU. Raises RuntimeError
    if it ends.
    """

    def __init__(
        self,
        host: Host,
        config: Path,
        backend_mac: str,
        command: Sequence[str] = (),
        cpu: int | None = None,
    ) -> None:
        more = [] if cpu is None else [str(cpu)]
        argv = [*command, sys.executable, "-m", "l4raw.bench.subject", str(config), backend_mac, *more]
        self._process: Any = host.popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._host = host
        self.started = self._answer()
        """Its counters at the start."""

    def use(self, who: str) -> dict[str, Any]:
        """OURS, BARE or NONE have the interfaces from now on; the counters of the balancer."""
        return self._ask(who)

    def count(self) -> dict[str, Any]:
        """Its counters."""
        return self._ask(_COUNT)

    def _ask(self, word: str) -> dict[str, Any]:
        try:
            print(word, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # its last words say why
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            _, errors = self._process.communicate()
            raise RuntimeError(f"the balancer under test: {errors.strip() or 'it ended'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # it undoes what it did, unless it hangs
            self._process.wait(_PATIENCE_S)
        self._host.end(self._process)
        self._process.stdout.close()
        self._process.stderr.close()


def main() -> None:
    """Parse the command line."""
    config, backend_mac, *cpu = sys.argv[1:]
    try:
        serve(Path(config), parse_mac(backend_mac), int(cpu[0]) if cpu else None)
    except (L4Error, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
