"""What the pairs have to say, once all are known: rules A (architecture, alignment); others from here."""

from __future__ import annotations

import re

from ingest_service.formats.gguf.adapter_rules import check_adapter
from ingest_service.formats.gguf.architecture_rules import check_architecture_numbers
from ingest_service.formats.gguf.attention_rules import check_attention
from ingest_service.formats.gguf.content import check_templates
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.model_rules import check_hyperparameters
from ingest_service.formats.gguf.projector_rules import check_projector
from ingest_service.formats.gguf.tensors import DEFAULT_ALIGNMENT, Extent, Tensors
from ingest_service.formats.gguf.types import I32, STRING, U16, U32
from ingest_service.formats.gguf.values import Metadata
from ingest_service.formats.gguf.vocabulary_rules import check_vocabulary

_ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: `clip-vision` is what projectors were called before `mmproj`.
_TYPES = frozenset({"model", "adapter", "mmproj", "projector", "clip-vision"})
_VOCABULARY_TYPES = frozenset({"vocab"})
#: Key, its type, its least value.
_SPLIT = (("split.no", U16, 0), ("split.count", U16, 0), ("split.tensors.count", I32, 0))


def check_pairs(metadata: Metadata, limits: GgufLimits) -> int | None:
    """Every rule about pairs; the alignment, None if it is none."""
    faults = metadata.faults
    _check_split(metadata)
    alignment = _alignment(metadata, limits)
    has_architecture = _check_architecture(metadata)
    _check_type(metadata, limits)
    with faults.collected():
        check_templates(metadata, limits)
    check_projector(metadata)
    check_adapter(metadata)
    if metadata.is_model:
        # Without an architecture it is not known which keys these rules are about.
        if has_architecture:
            check_hyperparameters(metadata, limits)
            check_architecture_numbers(metadata)
            check_attention(metadata)
        check_vocabulary(metadata, limits)
    return alignment


def check_tensor_count(metadata: Metadata, count: int, offset: int, limits: GgufLimits) -> None:
    """H6 for none: a vocabulary alone, or a split's first file, whose tensors are in the others."""
    if count == 0 and not (metadata.is_shard or limits.allow_vocabulary_only):
        metadata.faults.add("H6", offset, "tensor_count", "The file has no tensors: it is no model.")


def check_data_offset(metadata: Metadata, tensors: Tensors, extent: Extent) -> None:
    """A2: llama.cpp maps a model into memory, and aborts if its tensors are not at a multiple of 32 there."""
    is_mapped = metadata.is_model or metadata.is_later_shard
    if is_mapped and tensors.is_sound and tensors.count and extent.data_offset % DEFAULT_ALIGNMENT:
        key = "general.alignment"
        message = f"The tensors begin at byte {extent.data_offset}, which is no multiple of 32:"
        metadata.faults.add("A2", metadata.offset(key), key, message + " llama.cpp would abort.")


def _check_architecture(metadata: Metadata) -> bool:
    """Whether there is one."""
    key = "general.architecture"
    value = metadata.values.get(key)
    if value is None:
        if not metadata.is_later_shard:
            metadata.add_missing_policy("A1", key, "The file does not say its architecture.")
        return False
    if value.type != STRING or not _ARCHITECTURE.fullmatch(metadata.architecture):
        message = "An architecture's name is 1 to 64 letters, digits, `.`, `_` and `-`."
        metadata.faults.add_policy("A1", value.offset, key, message)
        return False
    return True


def _alignment(metadata: Metadata, limits: GgufLimits) -> int | None:
    key = "general.alignment"
    value = metadata.values.get(key)
    if value is None:
        return DEFAULT_ALIGNMENT
    number = metadata.integer(key) or 0
    if value.type != U32 or number < 1 or number & (number - 1) or number > limits.max_alignment_bytes:
        message = f"An alignment is a u32 and a power of two up to {limits.max_alignment_bytes}, "
        metadata.faults.add("A2", value.offset, key, message + f"not {value.type_name} {value.data}.")
        return None
    return number


def _check_type(metadata: Metadata, limits: GgufLimits) -> None:
    key = "general.type"
    value = metadata.values.get(key)
    if value is None:
        return
    allowed = _TYPES | _VOCABULARY_TYPES if limits.allow_vocabulary_only else _TYPES
    if metadata.text(key) not in allowed:
        # Where it is taken it is read as a model, as by llama.cpp, which does not look at this key.
        metadata.is_type_ignored = metadata.faults.is_warning("A3")
        message = f"{value.data!r} is no model, adapter or projector, which is what can be taken in."
        metadata.faults.add_policy("A3", value.offset, key, message)


def _check_split(metadata: Metadata) -> None:
    """llama.cpp goes by the count alone, and looks at the others where it is more than 1."""
    if "split.count" not in metadata.values or metadata.integer("split.count") in (0, 1):
        return
    is_sound = True
    for key, kind, least in _SPLIT:
        value = metadata.values.get(key)
        if value is None:
            metadata.add_missing_policy("A4", key, f"A shard says {key}, as it says split.count.")
            is_sound = False
        elif value.type != kind or (metadata.integer(key) or 0) < least:
            message = f"{value.type_name} {value.data} cannot be {key}."
            metadata.faults.add_policy("A4", value.offset, key, message)
            is_sound = False
    if not is_sound:
        return
    number, count = metadata.integer("split.no") or 0, metadata.integer("split.count") or 0
    if number >= count:
        message = f"There is no shard {number} of {count}."
        metadata.faults.add_policy("A4", metadata.offset("split.no"), "split.no", message)
