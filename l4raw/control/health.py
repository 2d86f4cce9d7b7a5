"""Health: asks every backend again and again, and keeps who is down out of the rings.

One thread with an event loop of its own. It only computes: a new policy lies
in `take()` for whoever owns the tables, for a thread of its own must not
change what frames are decided by. Building rings takes Python tens of
milliseconds, so it is done in small pieces with pauses between them, in which
the packet path runs: they share one interpreter.

A backend that is down takes no new flows. Its established flows stay, for a
failed check may be a mistake; who was not answered moves (core/reuse.py).
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from l4raw.control.checks import Check, Target, targets
from l4raw.control.probes import Probe, failed, handshake
from l4raw.control.standing import Event, Result, Standing, State
from l4raw.control.vip_probe import VipProbe
from l4raw.core.outage import without
from l4raw.core.tables import Policy

AT_ONCE: Final = 256
"""Checks at one moment; each has a file descriptor or two."""
_SPREAD_S: Final = 0.5
"""In which the first checks are made."""
_JITTER: Final = 0.1
"""An interval is shortened by up to this part, so that checks do not march in step."""
_PAUSE_S: Final = 0.001
"""Between two pieces of a ring."""

_T = TypeVar("_T")


class Change(NamedTuple):
    """A policy that should be in force from now on, and what a person should know once it is."""

    policy: Policy
    events: list[Event]


class Health:
    """Checks what a policy has. `start`, then `take` and `check` now and then, `close`."""

    def __init__(
        self,
        policy: Policy,
        checks: Mapping[str, Check],
        seed: bytes,
        vip_probe: VipProbe,
    ) -> None:
        """`policy` has the rings of all backends; `checks` are by service; `seed` is the ring seed."""
        now = time.monotonic()
        self.standings = [Standing(target, now) for target in targets(policy, checks)]
        self._policy, self._seed = policy, seed
        self._vip_probe = vip_probe
        self._handshake: Probe = handshake
        self._news: list[Event] = []
        """What the policy that is being built does not have yet."""
        self._changes: deque[Change] = deque()
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None
        self._failed: BaseException | None = None

    def start(self) -> None:
        """Begin, in the caller's network namespace; nothing to check, no thread."""
        if not self.standings:
            return
        running = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(running,), name="health", daemon=True)
        self._thread.start()
        running.wait()

    def take(self) -> Change | None:
        """The next change, once; None: there is nothing new."""
        return self._changes.popleft() if self._changes else None

    def check(self) -> None:
        """Raises what ended the thread, if it was not `close`."""
        if self._failed:
            raise self._failed

    def close(self) -> None:
        """Stop. May be called twice."""
        if self._thread:
            self._stop()
            self._thread.join()

    def _run(self, running: threading.Event) -> None:
        try:
            asyncio.run(self._watch_all(running))
        except BaseExceptionGroup as group:
            self._failed = group.exceptions[0]
        except Exception as error:
            self._failed = error
        finally:
            running.set()

    async def _watch_all(self, running: threading.Event) -> None:
        loop, ended, changed = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        room = asyncio.Semaphore(AT_ONCE)

        def stop() -> None:
            with suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(ended.set)

        self._stop = stop
        running.set()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._watch(each, room, changed)) for each in self.standings]
                tasks.append(group.create_task(self._rebuild(changed)))
                await ended.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._vip_probe.close()

    async def _watch(self, standing: Standing, room: asyncio.Semaphore, changed: asyncio.Event) -> None:
        interval = standing.target.check.interval / 1000
        await asyncio.sleep(random.random() * min(interval, _SPREAD_S))
        while True:
            due = time.monotonic() + interval * (1 - _JITTER * random.random())
            async with room:
                result = await self._ask(standing.target)
            if event := standing.take(result, time.monotonic()):
                self._news.append(event)
                changed.set()
            await asyncio.sleep(due - time.monotonic())

    async def _ask(self, target: Target) -> Result:
        probe: Probe = self._vip_probe if target.at_vip else self._handshake
        seconds = target.check.timeout / 1000
        try:
            async with asyncio.timeout(seconds):
                return await probe(target)
        except TimeoutError:
            return Result(False, f"no answer within {seconds:g} s")
        except OSError as error:
            return failed(error)

    async def _rebuild(self, changed: asyncio.Event) -> None:
        """A policy for every change, or for several at once."""
        while True:
            await changed.wait()
            changed.clear()
            news, self._news = self._news, []
            down = [each.target.number for each in self.standings if each.state is State.DOWN]
            policy = await _in_pieces(without(self._policy, down, self._seed))
            self._changes.append(Change(policy, news))


async def _in_pieces(steps: Generator[None, None, _T]) -> _T:
    """What a generator returns, with a pause after each of its pieces."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: _T = done.value
            return result
        await asyncio.sleep(_PAUSE_S)
