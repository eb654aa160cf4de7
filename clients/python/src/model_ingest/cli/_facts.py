"""What a header says, in lines for a person. Everything here returns printable text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from model_ingest._clean import printable

#: Of these one line in the order of the list; what else there is comes after, as it is.
_LABELS = {
    "architecture": "architecture",
    "name": "name",
    "size_label": "size label",
    "parameter_count": "parameters",
    "quantization": "quantization",
    "context_length": "context length",
    "embedding_length": "embedding length",
    "block_count": "blocks",
    "tokenizer": "tokenizer",
    "chat_template": "chat template",
    "license": "license",
}
#: Said by another line, or of no use to a person.
_LEFT_OUT = frozenset(
    {"quantization_mix", "vocabulary_size", "tensor_count", "type", "tokenizer_pre", "chat_template_bytes"}
)
_SHOWN_CHARACTERS = 160


def fact_lines(struct: Struct) -> list[str]:
    """For `show`."""
    facts = MessageToDict(struct)
    keys = [key for key in _LABELS if key in facts]
    keys += sorted(key for key in facts if key not in _LABELS and key not in _LEFT_OUT)
    return [f"  {_LABELS.get(key, printable(key)):<17} {_value(key, facts)}" for key in keys]


def short_facts(struct: Struct) -> str:
    """`llama, 8.03 B parameters, Q4_K_M, context 8192`, as far as it is known."""
    facts = MessageToDict(struct)
    parts = [str(facts[key]) for key in ("architecture",) if key in facts]
    parts += [f"{_count(facts['parameter_count'])} parameters"] if "parameter_count" in facts else []
    parts += [str(facts["quantization"])] if "quantization" in facts else []
    parts += [f"context {facts['context_length']:.0f}"] if "context_length" in facts else []
    return printable(", ".join(parts))


def _value(key: str, facts: dict[str, Any]) -> str:
    words = _WORDS.get(key)
    if words is not None:
        return words(facts)
    value = facts[key]
    if isinstance(value, float):
        return f"{value:g}" if value % 1 else f"{value:.0f}"
    text = "; ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return printable(text, _SHOWN_CHARACTERS)


def _parameters(facts: dict[str, Any]) -> str:
    count = facts["parameter_count"]
    return f"{_count(count)} ({count:.0f} in {facts.get('tensor_count', 0):.0f} tensors)"


def _quantization(facts: dict[str, Any]) -> str:
    return printable(f"{facts['quantization']}{_mix(facts.get('quantization_mix', []))}")


def _tokenizer(facts: dict[str, Any]) -> str:
    size = facts.get("vocabulary_size")
    return printable(f"{facts['tokenizer']}, {size:.0f} tokens" if size else str(facts["tokenizer"]))


def _template(facts: dict[str, Any]) -> str:
    text = facts["chat_template"]
    return f"{len(text)} characters: {printable(text, _SHOWN_CHARACTERS)}"


_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "parameter_count": _parameters,
    "quantization": _quantization,
    "tokenizer": _tokenizer,
    "chat_template": _template,
}


def _mix(shares: list[dict[str, Any]]) -> str:
    total = sum(share["size_bytes"] for share in shares)
    if not total:
        return ""
    return " (" + ", ".join(f"{s['type']} {100 * s['size_bytes'] / total:.0f} %" for s in shares[:5]) + ")"


def _count(number: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
