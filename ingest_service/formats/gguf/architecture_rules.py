"""Rules M7 and M8: numbers that llama.cpp asserts or divides by, and keys that are a number or an array."""

from __future__ import annotations

from ingest_service.formats.gguf.types import F32, I32, STRING, U32
from ingest_service.formats.gguf.values import Metadata

_EPSILONS = ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon")
#: llama.cpp asserts that ssm.inner_size is twice the embedding.
_TWICE_THE_EMBEDDING = frozenset({"jamba", "granitehybrid", "mamba2"})
#: Their head size is a divisor before anything else is looked at.
_DIVIDE_BY_HEAD_SIZE = frozenset({"rwkv6qwen2"})
#: What llama.cpp reads with its "key or array" getter: for each key the element types of which b9190 aborts.
#: Other types, and other counts than the blocks', end in a plain error.
_KEY_OR_ARRAY: dict[str, tuple[int, ...]] = {
    "attention.head_count_kv": (F32, STRING),
    "feed_forward_length": (F32, STRING),
    "rope.dimension_sections": (F32, STRING),
}
_APERTUS = ("xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps")


def check_architecture_numbers(metadata: Metadata) -> None:
    """The rules M7 and M8 of one model."""
    prefix = metadata.architecture + "."
    for name in _EPSILONS:
        key = f"{prefix}attention.{name}"
        number = metadata.number(key)
        # NaN is neither.
        if number is not None and not number >= 0:
            message = f"{key} is {number}: llama.cpp aborts unless it is 0 or more."
            metadata.faults.add("M7", metadata.offset(key), key, message)
    if metadata.architecture in _TWICE_THE_EMBEDDING:
        key = prefix + "ssm.inner_size"
        inner, width = metadata.integer(key), metadata.integer(prefix + "embedding_length")
        if inner is not None and width is not None and inner != 2 * width:
            message = f"{key} is {inner}: llama.cpp aborts unless it is twice the embedding, {2 * width}."
            metadata.faults.add("M7", metadata.offset(key), key, message)
    if metadata.architecture in _DIVIDE_BY_HEAD_SIZE:
        key = prefix + "wkv.head_size"
        if metadata.integer(key) == 0:
            metadata.faults.add("M7", metadata.offset(key), key, f"{key} is 0: llama.cpp divides by it.")
    deadly_types = {prefix + name: types for name, types in _KEY_OR_ARRAY.items()}
    if metadata.architecture == "apertus":
        deadly_types |= dict.fromkeys(_APERTUS, (U32, I32, STRING))
    for key, deadly in deadly_types.items():
        array = metadata.array(key)
        if array is not None and array.element_type in deadly:
            kind = metadata.values[key].type_name
            message = f"{key} is an {kind}: llama.cpp b9190 aborts of elements of that type."
            metadata.faults.add("M8", metadata.offset(key), key, message)
