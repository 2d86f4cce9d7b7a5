"""checksum.h against l4raw/wire/checksum.py, on the numbers that are hard: carries, and the two zeros."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from l4raw.wire import checksum
from tests.conformance.test_abi import load_from
from tests.variants import NATIVE

pytestmark = pytest.mark.native

EDGES = [0, 1, 2, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x1FFFE, 0x1FFFF, 0x2FFFD, 0x2FFFE, 0xFFFF_FFFE]
EDGES += [0xFFFF_FFFF, 0x1_0000_0000, 0x1_FFFE_FFFF, 0xFFFF_FFFE_FFFF, 0xFFFF_0000_FFFF, 0xFFFF_FFFF_FFFF]

WRAPPERS = """
static uint16_t fold(uint64_t sum) { return l4_fold(sum); }
static uint16_t update(uint16_t field, uint64_t change) { return l4_update(field, change); }
static uint16_t update_partial(uint16_t field, uint64_t change) { return l4_update_partial(field, change); }
static uint64_t sum(const uint8_t *start, uint32_t size) { return l4_sum(start, start + size, size); }
"""


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A cffi module over checksum.h: its `lib`."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef("""
        uint16_t fold(uint64_t);
        uint16_t update(uint16_t, uint64_t);
        uint16_t update_partial(uint16_t, uint64_t);
        uint64_t sum(const uint8_t *, uint32_t);
    """)
    text = '#include "memory.h"\n#include "checksum.h"\n' + WRAPPERS
    folders = [str(NATIVE / "include"), str(NATIVE / "src")]
    ffi.set_source("checksums", text, include_dirs=folders, extra_compile_args=["-w"])
    folder = tmp_path_factory.mktemp("checksums")
    ffi.compile(tmpdir=str(folder))
    return load_from(Path(folder), "checksums").lib


def numbers(bits: int) -> list[int]:
    """Edges, and some others."""
    some = random.Random(bits)
    return [edge for edge in EDGES if edge < 1 << bits] + [some.getrandbits(bits) for _ in range(2000)]


def test_fold(helper: Any) -> None:
    for total in numbers(48):
        assert helper.fold(total) == checksum.fold(total), hex(total)


@pytest.mark.parametrize("name", ["update", "update_partial"])
def test_updates(helper: Any, name: str) -> None:
    c, python = getattr(helper, name), getattr(checksum, name)
    for field in (0, 1, 0x7FFF, 0xFFFE, 0xFFFF, 0x1234):
        for change in numbers(34):
            if field == change == 0 or (field, change) == (0xFFFF, 0):
                continue  # the sum of nothing: what is covered is never all zero
            assert c(field, change) == python(field, change), (hex(field), hex(change))


def test_sum(helper: Any) -> None:
    some = random.Random(1)
    for size in [*range(70), 1459, 1460, 65535]:
        for data in (some.randbytes(size), b"\xff" * size, bytes(size)):
            native = helper.fold(helper.sum(data, size)).to_bytes(2, sys.byteorder)
            assert int.from_bytes(native, "big") == checksum.fold(checksum.add(data)), size
