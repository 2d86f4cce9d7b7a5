"""Which of a few files have something to read: poll(2), as select(2) takes no file number above 1023.

What is done with a file that can be read is its owner's business and does not belong here.
"""

from __future__ import annotations

import select
from typing import Protocol


class _File(Protocol):
    def fileno(self) -> int: ...


def readable(*files: int | _File, timeout: float) -> set[int]:
    """The numbers of those `files` that can be read, or have failed or ended; none after `timeout` seconds.

    A timeout below zero is none left: what is ready now is returned at once.
    """
    waiting = select.poll()
    for file in files:
        waiting.register(file, select.POLLIN)
    return {number for number, _ in waiting.poll(max(0.0, timeout) * 1000)}
