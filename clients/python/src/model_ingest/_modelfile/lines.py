"""What is said about one line of a Modelfile: an error, or a warning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_WARNINGS: Final = 20
MAX_ERRORS: Final = 20


class LineError(Exception):
    """A line that cannot be used. `words` say what is wrong and what to do."""

    def __init__(self, line: int, words: str) -> None:
        super().__init__(words)
        self.line = line
        self.words = words


@dataclass(frozen=True, slots=True)
class Warnings:
    """Collects at most MAX_WARNINGS lines of text, and one more that says there were more."""

    texts: list[str]

    def add(self, line: int, words: str) -> None:
        """One warning about the line with that number."""
        if len(self.texts) < MAX_WARNINGS:
            self.texts.append(f"line {line}: {words}")
        elif len(self.texts) == MAX_WARNINGS:
            self.texts.append("there are more warnings, which are not shown")


class Errors:
    """The lines that cannot be used: the first MAX_ERRORS, and how many more there are."""

    def __init__(self) -> None:
        self.found: list[LineError] = []
        self.left_out = 0

    def add(self, error: LineError) -> None:
        """One more, in whatever order they are found."""
        self.found = sorted([*self.found, error], key=lambda one: one.line)
        self.left_out += len(self.found) > MAX_ERRORS
        del self.found[MAX_ERRORS:]
