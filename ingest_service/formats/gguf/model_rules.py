"""Rules M: the numbers that llama.cpp divides by, indexes with or allocates for."""

from __future__ import annotations

from ingest_service.formats.gguf.expert_rules import check_experts
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.number_types import DIVISOR_OF_OLLAMA, is_u32
from ingest_service.formats.gguf.types import F32, I32, STRING, U32
from ingest_service.formats.gguf.values import Metadata
from ingest_service.formats.policies import POLICIES

_MAX_LENGTH = 2**31 - 1
#: They have no attention heads; their writers put 0, or nothing.
_WITHOUT_HEADS = ("mamba", "rwkv", "arwkv", "wavtokenizer")
#: llama.cpp divides by their number of heads; it refuses others' 0 in words.
_DIVIDE_BY_HEADS = frozenset({"gemma2"})
_ROPE_SCALINGS = frozenset({"none", "linear", "yarn", "longrope"})
#: What Ollama's converters of these write where a model has no scaling, and its own engine reads as none.
_NO_ROPE_SCALING = frozenset({"", "default"})
_CONVERTED_BY_OLLAMA = frozenset({"deepseek2", "laguna", "mistral3", "olmo3"})


def check_hyperparameters(metadata: Metadata, limits: GgufLimits) -> None:
    """The rules M of one model."""
    prefix = metadata.architecture + "."
    _check_range(metadata, prefix + "block_count", "M1", limits.max_blocks)
    _check_range(metadata, prefix + "embedding_length", "M5", _MAX_LENGTH)
    # Some converters write 0 for "not known", which llama.cpp takes.
    _check_range(metadata, prefix + "context_length", "M5", _MAX_LENGTH, least=0)
    key = prefix + "nextn_predict_layers"
    if (metadata.integer(key) or 0) > (metadata.integer(prefix + "block_count") or limits.max_blocks):
        message = f"{key} is {metadata.integer(key)}, more than there are blocks: llama.cpp would abort."
        metadata.faults.add("M1", metadata.offset(key), key, message)
    _check_heads(metadata, prefix)
    check_experts(metadata, prefix, limits)
    key = prefix + "rope.scaling.type"
    scaling = metadata.text(key)
    if scaling in _NO_ROPE_SCALING and metadata.architecture in _CONVERTED_BY_OLLAMA:
        shown = "empty" if not scaling else repr(scaling)
        metadata.warnings.append(
            f"{key} is {shown}, as Ollama's converter writes it: llama.cpp aborts of that"
        )
    elif key in metadata.values and scaling not in _ROPE_SCALINGS:
        message = f"{metadata.values[key].data!r} is no scaling that llama.cpp knows: it would abort."
        metadata.faults.add("M6", metadata.offset(key), key, message)


def _check_range(metadata: Metadata, key: str, rule: str, most: int, *, least: int = 1) -> None:
    if not is_u32(metadata, key):
        return
    number = metadata.integer(key)
    if number is None:
        message = f"The model does not say its {key}."
        if key.endswith(DIVISOR_OF_OLLAMA):
            metadata.add_missing("M2", key, message)
        else:
            metadata.add_missing_policy("M2", key, message)
    elif not least <= number <= most:
        message = f"{key} is {least} to {most}, not {number}."
        if rule in POLICIES:
            metadata.faults.add_policy(rule, metadata.offset(key), key, message)
        else:
            metadata.faults.add(rule, metadata.offset(key), key, message)


def _check_heads(metadata: Metadata, prefix: str) -> None:
    key = prefix + "attention.head_count"
    value = metadata.values.get(key)
    none_needed = prefix.startswith(_WITHOUT_HEADS)
    is_deadly = metadata.architecture in _DIVIDE_BY_HEADS
    if value is None:
        if not none_needed:
            message = "The model does not say how many attention heads it has."
            if is_deadly:
                metadata.add_missing("M3", key, message)
            else:
                metadata.add_missing_policy("M3", key, message)
        return
    array = metadata.array(key)
    if array is not None:
        # One for each block, and some blocks may have none.
        if array.element_type in (F32, STRING):
            message = f"{key} is an {value.type_name}: llama.cpp b9190 aborts of elements of that type."
            metadata.faults.add("M8", value.offset, key, message)
        elif array.element_type in (U32, I32) and not any(number > 0 for number in array.numbers()):
            message = f"{value.type_name}: not all blocks may be without attention heads."
            metadata.faults.add_policy("M3", value.offset, key, message)
    elif is_u32(metadata, key) and not metadata.integer(key) and not none_needed:
        if is_deadly:
            message = "llama.cpp divides by the number of attention heads, which is 0."
            metadata.faults.add("M3", value.offset, key, message)
        else:
            message = "llama.cpp does not load a model without attention heads."
            metadata.faults.add_policy("M3", value.offset, key, message)
