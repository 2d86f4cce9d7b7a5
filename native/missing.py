"""What a build step raises when something has to be installed first."""

from __future__ import annotations


class Missing(Exception):
    """The text says what is missing, and how to get it on Debian and Ubuntu."""
