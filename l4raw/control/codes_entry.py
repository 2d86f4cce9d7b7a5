"""What is recorded of a code: see codes.py."""

from __future__ import annotations

from dataclasses import dataclass

_EXIT_CODES = {"1": 3, "2": 4, "3": 5, "4": 1}


@dataclass(frozen=True, slots=True)
class Code:
    """A registered code, `L4R-nnn`."""

    name: str
    title: str
    why: str
    fix: str
    warning: bool = False
    exits: int | None = None
    """An exit code that is not that of the hundred."""

    @property
    def exit_code(self) -> int:
        """0 for a warning, else 1, 3, 4, 5 or 6."""
        if self.warning:
            return 0
        return self.exits if self.exits is not None else _EXIT_CODES[self.name[4]]
