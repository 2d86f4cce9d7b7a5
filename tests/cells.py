"""Which combinations of a large matrix belong to the quick run.

Lives here: that choice. `make test` leaves out what is marked long; `make test-long` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest


def halved(*axes: Sequence[Any], make: Callable[..., Any] = pytest.param) -> list[Any]:
    """All combinations of three axes or more; each second one is marked long.

    Those that are left have each value of an axis together with each of any other axis.
    `make` is called with a combination's values and `marks`, and returns what pytest.param() does.
    """
    found: list[Any] = []
    for places in product(*(range(len(axis)) for axis in axes)):
        cell = (axis[place] for axis, place in zip(axes, places, strict=True))
        found.append(make(*cell, marks=pytest.mark.long if sum(places) % 2 else ()))
    return found
