"""What a guest starts with: an archive in memory with a shell, a few modules and init.sh.

Lives here: the format (newc, the one that Linux reads) and the contents. Must
not live here: what runs in the guest (init.sh, agent.sh).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .kernels import Kernel, module_contents

HERE: Final = Path(__file__).parent
ROOT_NEEDS: Final = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""Modules without which there is no root; all others are loaded from there."""

_FOLDER, _FILE = 0o040755, 0o100755


def initramfs(kernel: Kernel, files: Mapping[str, bytes | str | Path], modules: tuple[str, ...]) -> bytes:
    """The archive. `files`: absolute path in the guest, and contents or where they are now.

    `modules` are loaded when the root is there.
    """
    found: dict[str, bytes] = {
        "init": (HERE / "init.sh").read_bytes(),
        "agent": (HERE / "agent.sh").read_bytes(),
        "busybox": kernel.busybox.read_bytes(),
    }
    order = kernel.load_order(*ROOT_NEEDS)
    found |= {f"modules/{number:02d}.ko": module_contents(path) for number, path in enumerate(order)}
    for path, value in files.items():
        found[f"files/{path.lstrip('/')}"] = _bytes(value)
    settings = {"MODULES": str(kernel.modules.parent), "LOAD": " ".join(modules)}
    lines = [f"{key}={shlex.quote(value)}\n" for key, value in settings.items()]
    found["settings"] = "".join(lines).encode()
    return archive(found)


def archive(files: Mapping[str, bytes]) -> bytes:
    """A newc archive of executable files, with the folders that they are in."""
    parts: list[bytes] = []
    folders: set[str] = set()
    for path, data in files.items():
        for parent in reversed(Path(path).parents[:-1]):
            if (name := str(parent)) not in folders:
                folders.add(name)
                parts += _member(name, _FOLDER, b"")
        parts += _member(path, _FILE, data)
    parts += _member("TRAILER!!!", 0, b"")
    return b"".join(parts)


def _member(name: str, mode: int, data: bytes) -> list[bytes]:
    """One entry: Documentation/driver-api/early-userspace/buffer-format.rst of Linux."""
    path = name.encode() + b"\0"
    # ino, mode, uid, gid, nlink, mtime, filesize, maj, min, rmaj, rmin, namesize, chksum
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]


def _bytes(value: bytes | str | Path) -> bytes:
    if isinstance(value, Path):
        return value.read_bytes()
    return value.encode() if isinstance(value, str) else value
