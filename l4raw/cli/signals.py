"""The signals that stop a balancer, and how many times somebody has to send them.

SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal is gone) all mean: stop and
undo. They only set a flag; the main thread looks at it between two bursts.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_PATIENCE_S: Final = 3.0


class Stopping(Exception):
    """Raised where a start that takes seconds can be given up."""


class StopFlag:
    """Call it: has one of the signals come?"""

    def __init__(self) -> None:
        self._come: float | None = None
        self._seen = False

    def __call__(self) -> bool:
        """True from the first signal on. Whoever was told so undoes what was done."""
        self._seen = self._come is not None
        return self._seen

    def check(self) -> None:
        """Raises Stopping if one of the signals has come."""
        if self():
            raise Stopping

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Remember it. If nobody has looked for long, another Ctrl-C ends what hangs."""
        now = time.monotonic()
        if self._come is None:
            self._come = now
        elif number == signal.SIGINT and not self._seen and now > self._come + _PATIENCE_S:
            raise KeyboardInterrupt


@contextmanager
def stop_flag() -> Iterator[StopFlag]:
    """Catch the signals as long as the context lasts; once one has come, more of them change nothing."""
    flag = StopFlag()
    wanted = [signal.SIGINT, signal.SIGTERM]
    # nohup has it ignored, and says with that: go on without the terminal.
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, flag.handle) for number in wanted}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            # Python gives its handlers up before it ends: one more signal would change the exit code.
            signal.signal(number, signal.SIG_IGN if flag() else handler)
