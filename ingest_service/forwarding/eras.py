"""How Ollama's /api/create behaves, by version (ollama-contract.md section 0), and what it cannot do."""

from __future__ import annotations

import re
from enum import Enum

from ingest_service.formats import SAFETENSORS, format_for
from ingest_service.forwarding.create_request import is_split
from ingest_service.vocabulary.quantize import GGUF_TYPES, SAFETENSORS_TYPES
from ingest_service.vocabulary.records import Ingest
from ingest_service.vocabulary.states import FileRole

#: Ollama before these versions ignores them without a word.
_FIRST_OF_OPTION = {"renderer": (0, 12, 0), "parser": (0, 12, 0), "requires": (0, 14, 0)}
_FIRST_OF_DRAFTS = (0, 30, 0)
_NOT_REWRITTEN = frozenset({FileRole.ADAPTER, FileRole.DRAFT})
#: Some ten seconds on a slow disk.
_SLOW_REWRITE_BYTES = 1 << 30
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


class Era(Enum):
    """A: in place. B: GGUF is rewritten. C: in place again, no LoRA, MLX for safetensors. D: as C."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"


def era_of(version: str) -> Era:
    """The era of a version; what is unknown, or a developer's 0.0.0, counts as the newest."""
    number = _number(version)
    if number is None or number >= (0, 40, 0):
        return Era.D
    if number >= (0, 34, 1):
        return Era.C
    return Era.B if number >= (0, 30, 0) else Era.A


def rewrites_at_length(version: str, ingest: Ingest) -> bool:
    """Ollama there writes the model's file anew: in silence, and with three times its size on its disk.

    Of a small one nobody notices.
    """
    is_large = sum(file.size_bytes for file in ingest.files) >= _SLOW_REWRITE_BYTES
    return is_large and era_of(version) is Era.B and not _roles(ingest) <= _NOT_REWRITTEN


def unsupported(version: str, ingest: Ingest) -> str:
    """What Ollama of that version cannot do of what this ingest asks for, by name; "" if it can do all.

    Asked before a byte is pushed: Ollama itself says so only once it has all of them, or not at all.
    """
    number = _number(version)
    if number is not None and number < (0, 5, 5):
        wish = "takes no `files` in a create (0.5.5 is the first that does)"
    elif number is not None and (unknown := _not_yet_known(number, ingest)):
        wish = unknown
    elif era_of(version) in {Era.A, Era.B}:
        wish = _too_early(era_of(version), ingest)
    else:
        wish = _too_late(ingest)
    return f"Ollama {version or 'of unknown version'} there {wish}." if wish else ""


def _not_yet_known(number: tuple[int, int, int], ingest: Ingest) -> str:
    for name, first in _FIRST_OF_OPTION.items():
        if ingest.options.get(name) and number < first:
            return f"does not know `options.{name}` ({_text(first)} is the first that does)"
    if number < _FIRST_OF_DRAFTS:
        first_words = f"({_text(_FIRST_OF_DRAFTS)} is the first that does)"
        if FileRole.DRAFT in _roles(ingest):
            return f"takes no draft, files of role DRAFT {first_words}"
        if "draft_num_predict" in ingest.options.get("parameters", {}):
            return f"does not know `options.parameters.draft_num_predict` {first_words}"
    return ""


def _text(number: tuple[int, int, int]) -> str:
    return ".".join(str(part) for part in number)


def _too_early(era: Era, ingest: Ingest) -> str:
    if era is Era.A and is_split(ingest):
        return "takes no split GGUF, files of role SHARD (0.30.0 is the first that does)"
    quantize = ingest.options.get("quantize", "")
    if quantize and quantize.upper() not in GGUF_TYPES:
        return f"has no `options.quantize` to {quantize}: it knows {', '.join(GGUF_TYPES)}"
    return ""


def _too_late(ingest: Ingest) -> str:
    if FileRole.ADAPTER in _roles(ingest):
        return "takes no LoRA adapters, files of role ADAPTER (0.34.0 is the last that does)"
    if "typical_p" in ingest.options.get("parameters", {}):
        return "refuses `options.parameters.typical_p` (0.34.0 is the last that takes it)"
    if FileRole.DRAFT in _roles(ingest) and _has_safetensors(ingest):
        return "takes no GGUF of role DRAFT beside safetensors (0.34.0 is the last that does)"
    return _no_longer_quantizes(ingest)


def _no_longer_quantizes(ingest: Ingest) -> str:
    if ingest.options.get("draft_quantize"):
        return "does not do `options.draft_quantize` of a GGUF (0.34.0 is the last that does)"
    quantize = ingest.options.get("quantize", "")
    if quantize and not _has_safetensors(ingest):
        return "does not do `options.quantize` of a GGUF (0.34.0 is the last that does)"
    if quantize and quantize.lower() not in SAFETENSORS_TYPES:
        return f"has no `options.quantize` to {quantize}: it knows {', '.join(SAFETENSORS_TYPES)}"
    return ""


def _roles(ingest: Ingest) -> set[FileRole]:
    return {file.role for file in ingest.files}


def _has_safetensors(ingest: Ingest) -> bool:
    return any(format_for(file.file_name) == SAFETENSORS for file in ingest.files)


def _number(version: str) -> tuple[int, int, int] | None:
    """None for what cannot be read, and for a developer's 0.0.0."""
    found = _VERSION.match(version)
    if found is None:
        return None
    number = (int(found[1]), int(found[2]), int(found[3]))
    return None if number == (0, 0, 0) else number
