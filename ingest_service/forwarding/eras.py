"""How Ollama's /api/create behaves, by version (ollama-contract.md section 0)."""

from __future__ import annotations

import re
from enum import Enum

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


class Era(Enum):
    """A: in place. B: GGUF is rewritten. C: in place again, no LoRA, MLX for safetensors. D: as C."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"


def era_of(version: str) -> Era:
    """The era of a version; what is unknown, or a developer's 0.0.0, counts as the newest."""
    found = _VERSION.match(version)
    if found is None:
        return Era.D
    number = (int(found[1]), int(found[2]), int(found[3]))
    if number == (0, 0, 0) or number >= (0, 40, 0):
        return Era.D
    if number >= (0, 34, 1):
        return Era.C
    return Era.B if number >= (0, 30, 0) else Era.A
