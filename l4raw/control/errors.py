"""What goes wrong outside a frame, in a form that a person can act on.

Lives here: `Problem` (one thing to tell), `L4Error` (one that stops the
program) and `ConfigErrors` (several found together). The codes and their
general advice are in codes.py, printing is in cli/output.py. A malformed frame
is never an error: it is a verdict.

    raise L4Error("L4R-203", what="eth0 carries the SSH connection from 192.0.2.7", where="eth0")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l4raw.control.codes import REGISTRY, Code


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning. Empty `why` and `fix` are filled from the registry.

    Raises KeyError for a code that is not registered: that is a mistake in l4raw, found by a unit test.
    """

    code: str
    what: str
    where: str | None = None
    """`file:line:column`, or the object: an interface, a service."""
    excerpt: str | None = None
    """The line of the file and a caret below it."""
    why: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        entry = REGISTRY[self.code]
        object.__setattr__(self, "why", self.why or entry.why)
        object.__setattr__(self, "fix", self.fix or entry.fix)

    @property
    def entry(self) -> Code:
        return REGISTRY[self.code]

    @property
    def severity(self) -> str:
        """`error` or `warning`."""
        return "warning" if self.entry.warning else "error"

    def as_dict(self) -> dict[str, str | None]:
        """The fields as they appear in JSON."""
        return {
            "code": self.code,
            "severity": self.severity,
            "what": self.what,
            "where": self.where,
            "excerpt": self.excerpt,
            "why": self.why,
            "fix": self.fix,
        }


class L4Error(Exception):
    """Stops the program; the command line prints it and exits with `exit_code`."""

    def __init__(
        self,
        code: str,
        *,
        what: str,
        where: str | None = None,
        excerpt: str | None = None,
        why: str = "",
        fix: str = "",
    ) -> None:
        """`why` and `fix` default to the registry's text for `code`."""
        super().__init__(f"{code}: {what}")
        self.problems: tuple[Problem, ...] = (Problem(code, what, where, excerpt, why, fix),)

    @property
    def code(self) -> str:
        return self.problems[0].code

    @property
    def what(self) -> str:
        return self.problems[0].what

    @property
    def where(self) -> str | None:
        return self.problems[0].where

    @property
    def excerpt(self) -> str | None:
        return self.problems[0].excerpt

    @property
    def why(self) -> str:
        return self.problems[0].why

    @property
    def fix(self) -> str:
        return self.problems[0].fix

    @property
    def exit_code(self) -> int:
        return self.problems[0].entry.exit_code


class ConfigErrors(L4Error):
    """Every problem of a configuration file at once, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """`problems` has at least one."""
        Exception.__init__(self, "; ".join(f"{problem.code}: {problem.what}" for problem in problems))
        self.problems = tuple(problems)
