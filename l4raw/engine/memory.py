"""Where the memory of shared tables comes from: the one allocator, with two backings.

`anonymous` maps memory of this process. `given` hands out mappings that
somebody else made, such as those of BPF_F_MMAPABLE maps, so that the kernel
reads the tables that the helper reads, and not a copy. What is built on
them cannot tell which it got.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from mmap import MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Final

Memory = bytearray | mmap

Allocate = Callable[[str, int], Memory]
"""Zeroed memory for the table of this name, of so many bytes or more."""


_HUGE: Final = 2 << 20
"""A table below it gains nothing from a huge page."""


def anonymous(name: str, size: int) -> Memory:
    """Memory that goes with the process; in huge pages where the kernel has them.

    In a large table every look-up is a page that the processor does not know
    yet: with 2 MiB instead of 4 KiB it knows a thousand times as much. Mappings
    of BPF maps have 4 KiB, whatever is advised.
    """
    memory = mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS)
    if size >= _HUGE:
        with suppress(OSError):  # a kernel without them
            memory.madvise(MADV_HUGEPAGE)
    return memory


def given(mappings: Mapping[str, Memory]) -> Allocate:
    """Take each table from `mappings`. Asking raises `ValueError` for one that is missing or too small."""

    def allocate(name: str, size: int) -> Memory:
        found = mappings.get(name)
        if found is None or len(found) < size:
            has = "none" if found is None else f"one of {len(found)} bytes"
            raise ValueError(f"table {name} needs a mapping of {size} bytes, there is {has}")
        return found

    return allocate
