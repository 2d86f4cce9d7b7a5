"""The differential run on a helper that was compiled with sanitizers, in a process of its own.

    LD_PRELOAD=libasan.so PYTHONMALLOC=malloc python -m tests.sanitized MODULE FRAMES SEED

Frames have no margin and tables are allocated one by one, so that the
sanitizer knows where each of them ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.variants import load


def main() -> None:
    """Put the module in the installed one's place, then run."""
    path, frames, seed = sys.argv[1:]
    sys.modules["l4raw._native"] = load(Path(path))
    from l4raw.engine import native
    from tests import tables
    from tests.differential import run

    assert native.available(), native.status()
    tables.allocate = lambda name, size: bytearray(size)
    tally = run(int(seed), int(frames), native, margin=b"")
    print(f"{tally.frames} frames, {tally.rewritten} sent, {tally.completed} completed")


if __name__ == "__main__":
    main()
