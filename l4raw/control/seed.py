"""The ring seed: generated once, then kept, so that a restart hashes flows to the same backends.

Balancers of a group must share it; they do so by naming it in the
configuration. It is the one file that outlives the process.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from l4raw.control.errors import L4Error

FILE = "ring_seed"
_BYTES = 32


def state_dir(environ: Mapping[str, str]) -> Path:
    """$L4RAW_STATE_DIR, else /var/lib/l4raw for root, else the user's own state folder."""
    if environ.get("L4RAW_STATE_DIR"):
        return Path(environ["L4RAW_STATE_DIR"])
    if os.geteuid() == 0:
        return Path("/var/lib/l4raw")
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "l4raw"


def ring_seed(folder: Path) -> bytes:
    """The seed in `folder`; made there if there is none. Raises L4R-306 if that fails."""
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Complete under another name first: of two that start at once, one wins and both read it.
        if not path.exists():
            draft = folder / f".{FILE}.{os.getpid()}"
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_BYTES) + "\n")
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return path.read_text("ascii").strip().encode()
    except (OSError, ValueError) as error:
        raise L4Error(
            "L4R-306",
            what=f"keeping the ring seed: {error}",
            where=str(path),
            fix='name one in the configuration: [lb] ring_seed = "..."',
        ) from error
