"""Which combinations of a large matrix belong to the quick run.

Lives here: that choice. `make test` leaves out what is marked long; `make test-long` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest


def halved(*axes: Sequence[Any]) -> list[Any]:
    """All combinations of three axes or more; each second one is marked long.

    Those that are left have each value of an axis together with each of any other axis.
    """
    found: list[Any] = []
    for places in product(*(range(len(axis)) for axis in axes)):
        cell = tuple(axis[place] for axis, place in zip(axes, places, strict=True))
        found.append(pytest.param(*cell, marks=pytest.mark.long) if sum(places) % 2 else cell)
    return found
