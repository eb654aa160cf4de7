"""Sets of architectures."""

from __future__ import annotations


def architectures(names: str) -> frozenset[str]:
    """The set of those that are named, with blanks between them."""
    return frozenset(names.split())
