"""Where the memory of shared tables comes from: the one allocator, with two backings.

`anonymous` maps memory of this process. `given` hands out mappings that
somebody else made, such as those of BPF_F_MMAPABLE maps, so that the kernel
reads the tables that the helper reads, and not a copy. What is built on
them cannot tell which it got.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from mmap import mmap

Memory = bytearray | mmap

Allocate = Callable[[str, int], Memory]
"""Zeroed memory for the table of this name, of so many bytes or more."""


def anonymous(name: str, size: int) -> Memory:
    """Memory that goes with the process."""
    return mmap(-1, size)


def given(mappings: Mapping[str, Memory]) -> Allocate:
    """Take each table from `mappings`. Asking raises `ValueError` for one that is missing or too small."""

    def allocate(name: str, size: int) -> Memory:
        found = mappings.get(name)
        if found is None or len(found) < size:
            has = "none" if found is None else f"one of {len(found)} bytes"
            raise ValueError(f"table {name} needs a mapping of {size} bytes, there is {has}")
        return found

    return allocate
