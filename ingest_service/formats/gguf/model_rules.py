"""Rules M: the numbers that llama.cpp divides by, indexes with or allocates for."""

from __future__ import annotations

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
        metadata.faults.add("M6", metadata.offset(key), key, message)


def _is_u32(metadata: Metadata, key: str) -> bool:
    """M2: a number that is there has the type that llama.cpp asks for; Ollama reads another type as 0."""
    value = metadata.values.get(key)
    if value is not None and value.type != U32:
        metadata.faults.add("M2", value.offset, key, f"{key} is a u32, not {value.type_name}.")
        return False
    return True


def _check_range(metadata: Metadata, key: str, rule: str, most: int) -> None:
    if not _is_u32(metadata, key):
        return
    number = metadata.integer(key)
    if number is None:
        metadata.add_missing("M2", key, f"The model does not say its {key}.")
    elif not 1 <= number <= most:
        metadata.faults.add(rule, metadata.offset(key), key, f"{key} is 1 to {most}, not {number}.")


def _check_heads(metadata: Metadata, prefix: str) -> None:
    key = prefix + "attention.head_count"
    value = metadata.values.get(key)
    none_needed = prefix.startswith(_WITHOUT_HEADS)
    if value is None:
        if not none_needed:
            metadata.add_missing("M3", key, "The model does not say how many attention heads it has.")
        return
    array = metadata.array(key)
    if array is not None:
        # One for each block, and some blocks may have none.
        if array.element_type not in (U32, I32) or not any(number > 0 for number in array.numbers()):
            message = f"{value.type_name}: there have to be 32-bit numbers of heads, and not all 0."
            metadata.faults.add("M3", value.offset, key, message)
    elif _is_u32(metadata, key) and not metadata.integer(key) and not none_needed:
        message = "A model with no attention heads makes llama.cpp divide by 0."
        metadata.faults.add("M3", value.offset, key, message)


def _check_experts(metadata: Metadata, prefix: str, limits: GgufLimits) -> None:
    name, key = prefix + "expert_count", prefix + "expert_used_count"
    if not all([_is_u32(metadata, name), _is_u32(metadata, key)]):
        return
    experts, used = metadata.integer(name) or 0, metadata.integer(key) or 0
    if experts > limits.max_experts:
        message = f"{experts} experts; at most {limits.max_experts}."
        metadata.faults.add("M4", metadata.offset(name), name, message)
    elif used > experts or (experts and not used):
        message = f"{used} of {experts} experts used: llama.cpp would abort."
        if key not in metadata.values:
            metadata.add_missing("M4", key, message)
        elif name in metadata.values or metadata.is_complete:
            metadata.faults.add("M4", metadata.offset(key), key, message)
