"""The ring seed: generated once, then kept, so that a restart hashes flows to the same backends.

Balancers of a group must share it; they do so by naming it in the
configuration. It is the one file that outlives the process.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

from l4raw.control.errors import L4Error

FILE = "ring_seed"
SYSTEM = Path("/var/lib/l4raw")
"""Where root's balancers keep it."""
_BYTES = 32
_SEED = re.compile(rb"[0-9a-f]{%d}" % (2 * _BYTES), re.IGNORECASE)


def state_dir(environ: Mapping[str, str]) -> Path:
    """$L4RAW_STATE_DIR, else /var/lib/l4raw for root, else the user's own state folder.

    Raises L4R-306 for a user without a home.
    """
    if environ.get("L4RAW_STATE_DIR"):
        return Path(environ["L4RAW_STATE_DIR"])
    if os.geteuid() == 0 and _is_ours(SYSTEM):
        return SYSTEM
    try:
        return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "l4raw"
    except RuntimeError as error:
        raise L4Error(
            "L4R-306",
            what="this user has no home to keep the ring seed in",
            where="$HOME",
            fix="name a folder of yours in L4RAW_STATE_DIR",
        ) from error


def _is_ours(folder: Path) -> bool:
    """Whether the folder that it is in, or would be made in, is of this root.

    To the root of an ordinary user's own namespace, a folder of the host's root is somebody else's
    (user_namespaces(7), "Unmapped user and group IDs"). Whose it is itself, and that a write fails, is no
    reason to look elsewhere: another seed would move flows.
    """
    folder = folder.parent
    while not folder.exists():
        folder = folder.parent
    return _owner(folder) == 0


def _owner(folder: Path) -> int:
    return folder.stat().st_uid


def is_kept(folder: Path) -> bool:
    """Whether there is a seed in `folder`, or no way to tell, which `ring_seed` says then."""
    try:
        return (folder / FILE).exists()
    except OSError:
        return True


def of_root(environ: Mapping[str, str]) -> Path | None:
    """The seed of root's balancers, where an ordinary user has another; None: there is no such other."""
    if os.geteuid() == 0 or environ.get("L4RAW_STATE_DIR"):
        return None
    return SYSTEM / FILE if SYSTEM.exists() else None


def ring_seed(folder: Path) -> bytes:
    """The seed in `folder`, in hex; made there if there is none.

    Raises L4R-306 if that fails, or if the file has something else in it: to
    go on with that, or with a new seed, would move flows to other backends.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
        content = path.read_bytes()
    except OSError as error:
        raise L4Error(
            "L4R-306",
            what=f"keeping the ring seed: {error}",
            where=str(path),
            fix='name one in the configuration: [lb] ring_seed = "..."',
        ) from error
    try:
        return check(content)
    except ValueError as error:
        raise L4Error(
            "L4R-306",
            what=f"the ring seed is damaged: {error}",
            where=str(path),
            why="it decides which backend a flow goes to; with another one, flows would move.",
            fix=f'remove {path}, for a new one, or name one in the configuration: [lb] ring_seed = "..."',
        ) from None


def check(content: bytes) -> bytes:
    """The seed that is the content of a seed file. Raises ValueError that says what is there instead."""
    seed = content.strip()
    if not _SEED.fullmatch(seed):
        raise ValueError(f"{len(content)} bytes, which are not {2 * _BYTES} hex digits")
    return seed


def _make(path: Path) -> None:
    """Write a new seed, unless somebody else has just done so. Raises OSError."""
    # Complete under another name first: of two that start at once, one wins and both read it.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)
