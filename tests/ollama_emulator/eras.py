"""Which Ollama a version string stands for (contract section 0)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_NUMBERS = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


#: Fields of a create, by the first version whose request has them.
_FIRST = {
    "renderer": (0, 12, 0),
    "parser": (0, 12, 0),
    "requires": (0, 14, 0),
    "draft_files": (0, 30, 0),
    "draft_quantize": (0, 30, 0),
}


class Era(Enum):
    """How `POST /api/create` behaves. Era D answers HTTP as C does."""

    A = "A"
    B = "B"
    C = "C"


@dataclass(frozen=True)
class Version:
    """One version string and every branch that hangs on it."""

    text: str

    @property
    def numbers(self) -> tuple[int, int, int] | None:
        """The numeric version; None for dev builds (0.0.0) and unreadable strings."""
        match = _NUMBERS.match(self.text)
        if match is None:
            return None
        found = (int(match[1]), int(match[2]), int(match[3]))
        return None if found == (0, 0, 0) else found

    def _before(self, major: int, minor: int, patch: int) -> bool:
        # An unknown version is treated as newest, so it is before nothing.
        return self.numbers is not None and self.numbers < (major, minor, patch)

    @property
    def era(self) -> Era:
        if self._before(0, 30, 0):
            return Era.A
        return Era.B if self._before(0, 34, 1) else Era.C

    @property
    def first_error_is_a_line(self) -> bool:
        """Before 0.12.6 a streaming create always answered 200."""
        return self._before(0, 12, 6)

    @property
    def show_is_cached(self) -> bool:
        """Measured on a real 0.24.0 and 0.33.0: since 0.23.2 show keeps its first `modified_at` for a
        manifest of the same digest, even over delete and create; only tags tells the true one."""
        return not self._before(0, 23, 2)

    @property
    def show_names_absent_model_as_sent(self) -> bool:
        """Measured: era A's show repeats the name as it was sent, later ones add the tag."""
        return self.era is Era.A

    @property
    def prune_grace_seconds(self) -> int:
        """0.21.0 added the one-hour grace (section 4)."""
        return 0 if self._before(0, 21, 0) else 3600

    def forgets(self, field: str) -> bool:
        """It came before this field of a create: Go's decoder skips what it does not know."""
        first = _FIRST.get(field)
        return first is not None and self._before(*first)

    @property
    def merges_split_gguf(self) -> bool:
        return not self._before(0, 30, 0)
