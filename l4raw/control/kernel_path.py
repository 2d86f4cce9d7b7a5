"""When the kernel path forwards: while every interface sends what an XDP program redirects to it.

A veth does only while its peer receives by NAPI, that is with GRO or an XDP
program; without it, frames vanish. Three things tell, and each of them can end
it: what the kernel says (xdp_features.py), what became of test frames, and the
drivers' counters beside ours (egress.py). Must not live here: how they are asked.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from l4raw.control.egress import Egress, Outcome, Trial
from l4raw.control.errors import L4Error
from l4raw.control.xdp_features import XdpFeatures
from l4raw.engine.readable import readable
from l4raw.wire.abi import FORWARD, REPLY

if TYPE_CHECKING:
    from l4raw.engine.afxdp import AfXdpEngine

LOOK_S: Final = 1.0
"""How often all is looked at; what the kernel says by itself is taken at once."""
AGAIN_S: Final = 10.0
"""Between two tests of an interface that did not send. Doubled each time that one fails in use ..."""
MOST_S: Final = 640.0
"""... up to this; one that has not failed for as long begins anew."""
LEAST: Final = 4
"""Frames that are enough to say that they are lost: TCP repeats one after 0.2, 0.6, 1.4 and 3 seconds."""
_FLUSHED_S: Final = 0.05
"""So soon a frame that a program has redirected has reached the driver: a burst later, and scheduling."""


class Forwards(NamedTuple):
    """Whether the kernel path forwards now."""

    forwards: bool
    reasons: tuple[str, ...]
    """Why it does not."""

    def __str__(self) -> str:
        if self.forwards:
            return "the kernel forwards"
        return f"the kernel forwards nothing, all frames go over af_xdp: {'; '.join(self.reasons)}"


class _Arm:
    """What is known of one interface."""

    def __init__(self, egress: Egress, number: int, sent: Callable[[], int], unknown: str) -> None:
        """`sent`: frames that the kernel path has redirected to it so far, as it counts them."""
        self._egress, self._number, self._sent, self._unknown = egress, number, sent, unknown
        self.name, self.index = egress.interfaces[number].name, egress.interfaces[number].index
        self._tested: Trial | None = egress.tested[number]
        self._again: float | None = None
        """When the next test is due."""
        self._hold, self._held_until = AGAIN_S, -math.inf
        self._before: tuple[int, int] | None = None
        """Frames that we had sent, and those that the driver had seen before that, when this began."""

    def reason(self, sends: bool | None, forwards: bool, now: float, pause: Callable[[float], None]) -> str:
        """Why the kernel path may not send through it; empty: it may.

        `sends` is what the kernel says, None: nothing. `forwards`: it has done so since the last time.
        """
        if self._again is None:
            self._again = now + AGAIN_S
        if sends is False:
            self._tested, self._before = None, None
            return f"{self.name} does not send what XDP redirects to it ({self._advice})"
        if not forwards:
            self._before = None
        if forwards and (lost := self._lost(pause)):
            self._hold = min(2 * self._hold, MOST_S) if now - self._held_until < MOST_S else AGAIN_S
            self._held_until = self._again = now + self._hold
            self._tested = Trial(Outcome.DROPPED, lost)
        elif self._tested is None or (self._blocks(sends) and now >= self._again):
            self._tested, self._again = self._egress.test(self._number), now + AGAIN_S
        return self._why(self._tested) if self._blocks(sends) else ""

    def _blocks(self, sends: bool | None) -> bool:
        """A test frame has the last word; where it says nothing, the kernel has."""
        outcome = self._tested.outcome if self._tested else Outcome.UNKNOWN
        return outcome is Outcome.DROPPED or (outcome is Outcome.UNKNOWN and not sends)

    def _why(self, tested: Trial) -> str:
        if tested.outcome is Outcome.DROPPED:
            return f"{self.name} drops what XDP redirects to it: {tested.why} ({self._advice})"
        unknown = f"whether {self.name} sends what XDP redirects to it cannot be told"
        return f"{unknown}: {tested.why}; {self._unknown}"

    @property
    def _advice(self) -> str:
        return (
            "a veth sends it while its other end has GRO: `ethtool -K PEER gro on` there;"
            f" `ip -d link show {self.name}` tells where it is"
        )

    def _lost(self, pause: Callable[[float], None]) -> str:
        """What has become of our frames, if half of them or more never reached the driver; else nothing.

        Frames that it refused reached it: its queue is full, as it would be with any other dataplane.
        """
        if self._tested is None or self._tested.outcome is not Outcome.SENT:
            return ""  # so there is no counter that would tell
        seen, sent = self._seen(), self._sent()
        if self._before is None:
            self._before = sent, seen
            return ""
        sent_before, seen_before = self._before
        ours = sent - sent_before
        if ours < LEAST:
            return ""
        self._before = sent, seen
        if 2 * (self._seen() - seen_before) > ours:
            return ""
        pause(_FLUSHED_S)  # they may be on their way
        reached = self._seen() - seen_before
        return "" if 2 * reached > ours else f"{max(0, reached):,} of {ours:,} frames reached its driver"

    def _seen(self) -> int:
        counts = self._egress.counts(self._number)
        return counts.taken + counts.refused


class Judge:
    """Lets the kernel forward, or not, as the interfaces are."""

    def __init__(
        self, egress: Egress, engine: AfXdpEngine, features: XdpFeatures | None, unknown: str = ""
    ) -> None:
        """The engine is told what `look` finds. `unknown`: why there are no features."""
        self._engine, self._features = engine, features
        last = len(egress.interfaces) - 1
        self._arms = [
            _Arm(egress, number, partial(self._sent, number, last), unknown) for number in range(last + 1)
        ]
        self._reasons: tuple[str, ...] | None = None

    def _sent(self, arm: int, last: int) -> int:
        """Backends are behind the last arm, clients behind the first."""
        verdicts = self._engine.tables.verdicts_by_kernel()
        return (verdicts[FORWARD] if arm == last else 0) + (0 if arm else verdicts[REPLY])

    def look(self, now: float, pause: Callable[[float], None]) -> Forwards | None:
        """Ask all of them, and do as they say. The answer, if it is another one than before.

        `now` in seconds; `pause` waits so many.
        """
        forwards = self._reasons == ()
        says = [self._ask(arm) for arm in self._arms]
        if False in says:
            self._engine.forward_in_kernel(False)  # what else there is to ask takes longer
        found = (self._reason(*each, forwards, now, pause) for each in zip(self._arms, says, strict=True))
        reasons = tuple(filter(None, found))
        self._engine.forward_in_kernel(not reasons)
        if reasons == self._reasons:
            return None
        self._reasons = reasons
        return Forwards(not reasons, reasons)

    def _ask(self, arm: _Arm) -> bool | str | None:
        """What the kernel says, None: it never does, or why it does not now. It may the next time."""
        try:
            return self._features.sends_redirected(arm.index) if self._features else None
        except L4Error as error:  # who lost an interface says so himself
            return error.what

    @staticmethod
    def _reason(
        arm: _Arm, sends: bool | str | None, forwards: bool, now: float, pause: Callable[[float], None]
    ) -> str:
        if isinstance(sends, str):
            return sends
        try:
            return arm.reason(sends, forwards, now, pause)
        except OSError as error:
            return f"reading the counters of {arm.name}: {error.strerror or error}"


class KernelPath:
    """A thread that looks each second, and when the kernel says that something has changed."""

    def __init__(
        self,
        egress: Egress,
        engine: AfXdpEngine,
        tell: Callable[[Forwards], None],
        open_features: Callable[[], XdpFeatures] = XdpFeatures,
    ) -> None:
        """`tell` is told, by the thread, in which state the kernel path is, at first and when it changes."""
        self._egress, self._engine, self._tell = egress, engine, tell
        self._open_features = open_features
        self._looked = threading.Event()
        self._ended, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="kernel-path", daemon=True)
        self._failed: Exception | None = None

    def start(self) -> None:
        """Begin, in the caller's network namespace. Returns when all was looked at once."""
        self._thread.start()
        self._looked.wait()
        self.check()

    def check(self) -> None:
        """Raises what ended the thread, if it was not `close`."""
        if self._failed:
            raise self._failed

    def close(self) -> None:
        """End it. The engine stays as it was told to be. May be called twice."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1
            if self._thread.ident:
                self._thread.join()
            os.close(self._ended)

    def _run(self) -> None:
        features: XdpFeatures | None = None
        try:
            unknown = ""
            try:
                features = self._open_features()
            except L4Error as error:
                unknown = error.what
            self._look(Judge(self._egress, self._engine, features, unknown), features)
        except Exception as error:
            self._failed = error
            self._engine.forward_in_kernel(False)
        finally:
            if features:
                features.close()
            self._looked.set()

    def _look(self, judge: Judge, features: XdpFeatures | None) -> None:
        news = features.news if features else None
        files = (self._ended, news) if news else (self._ended,)
        while True:
            if change := judge.look(time.monotonic(), self._pause):
                self._tell(change)
            self._looked.set()
            if self._ended in readable(*files, timeout=LOOK_S):
                return
            if features:
                features.take_news()

    def _pause(self, seconds: float) -> None:
        readable(self._ended, timeout=seconds)
