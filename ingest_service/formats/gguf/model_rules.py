"""Rules M: the numbers that llama.cpp divides by, indexes with or allocates for."""

from __future__ import annotations

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.types import I32, U32
from ingest_service.formats.gguf.values import Metadata

_MAX_LENGTH = 2**31 - 1
#: They have no attention heads; their writers put 0, or nothing.
_WITHOUT_HEADS = ("mamba", "rwkv", "arwkv", "wavtokenizer")
_ROPE_SCALINGS = frozenset({"none", "linear", "yarn", "longrope"})


def check_hyperparameters(metadata: Metadata, limits: GgufLimits) -> None:
    """The rules M of one model."""
    prefix = metadata.architecture + "."
    _check_range(metadata, prefix + "block_count", "M1", limits.max_blocks)
    for name in ("context_length", "embedding_length"):
        _check_range(metadata, prefix + name, "M5", _MAX_LENGTH)
    _check_heads(metadata, prefix)
    _check_experts(metadata, prefix, limits)
    key = prefix + "rope.scaling.type"
    if key in metadata.values and metadata.text(key) not in _ROPE_SCALINGS:
        message = f"{metadata.values[key].data!r} is no scaling that llama.cpp knows: it would abort."
        refuse("M6", metadata.offset(key), key, message)


def _u32(metadata: Metadata, key: str) -> int | None:
    """M2: a number has the type that llama.cpp asks for; Ollama reads another type as 0."""
    value = metadata.values.get(key)
    if value is None:
        return None
    if value.type != U32:
        refuse("M2", value.offset, key, f"{key} is a u32, not {value.type_name}.")
    return metadata.integer(key)


def _check_range(metadata: Metadata, key: str, rule: str, most: int) -> None:
    number = _u32(metadata, key)
    if number is None:
        refuse("M2", 0, key, f"The model does not say its {key}.")
    if not 1 <= number <= most:
        refuse(rule, metadata.offset(key), key, f"{key} is 1 to {most}, not {number}.")


def _check_heads(metadata: Metadata, prefix: str) -> None:
    key = prefix + "attention.head_count"
    value = metadata.values.get(key)
    none_needed = prefix.startswith(_WITHOUT_HEADS)
    if value is None:
        if not none_needed:
            refuse("M3", 0, key, "The model does not say how many attention heads it has.")
        return
    array = metadata.array(key)
    if array is not None:
        # One for each block, and some blocks may have none.
        if array.element_type not in (U32, I32) or not any(number > 0 for number in array.numbers()):
            message = f"{value.type_name}: there have to be 32-bit numbers of heads, and not all 0."
            refuse("M3", value.offset, key, message)
        return
    if not _u32(metadata, key) and not none_needed:
        refuse("M3", value.offset, key, "A model with no attention heads makes llama.cpp divide by 0.")


def _check_experts(metadata: Metadata, prefix: str, limits: GgufLimits) -> None:
    experts = _u32(metadata, prefix + "expert_count") or 0
    key = prefix + "expert_used_count"
    used = _u32(metadata, key) or 0
    if experts > limits.max_experts:
        name = prefix + "expert_count"
        refuse("M4", metadata.offset(name), name, f"{experts} experts; at most {limits.max_experts}.")
    if used > experts or (experts and not used):
        at = metadata.offset(key) or metadata.offset(prefix + "expert_count")
        refuse("M4", at, key, f"{used} of {experts} experts used: llama.cpp would abort.")
