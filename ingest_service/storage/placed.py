"""How a blob came into another program's directory, or why it did not."""

from __future__ import annotations

from enum import StrEnum


class PlacedBy(StrEnum):
    """How a blob came into the directory."""

    PRESENT = "already there, compared"
    REFLINK = "reflink"
    HARDLINK = "hardlink"
    COPY = "copy"


class NotPlaced(Exception):
    """It cannot be placed there; `words` say why."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words
