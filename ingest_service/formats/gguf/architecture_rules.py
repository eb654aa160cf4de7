"""Rules M7 and M8: numbers that llama.cpp asserts or divides by, and keys that are a number or an array."""

from __future__ import annotations

from ingest_service.formats.gguf.types import F32, I32, STRING, U32
from ingest_service.formats.gguf.values import Metadata

_EPSILONS = ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon")
#: llama.cpp asserts that ssm.inner_size is twice the embedding.
_TWICE_THE_EMBEDDING = frozenset({"jamba", "granitehybrid", "mamba2"})
#: ssm.time_step_rank divides ssm.inner_size.
_RANK_DIVIDES = frozenset({"falcon-h1", "granitehybrid", "mamba2", "plamo2"})
#: ssm.group_count divides it too.
_GROUPS_DIVIDE = frozenset({"falcon-h1", "granitehybrid", "mamba2"})
#: The only value of a key with which llama.cpp runs the architecture, where the key is there.
_ONLY_VALUE = {
    "plamo2": ("ssm.group_count", 0),
    "deepseek2-ocr": ("rope.freq_base", 10_000.0),
    "rwkv6": ("token_shift_count", 2),
    "rwkv7": ("token_shift_count", 2),
    "arwkv7": ("token_shift_count", 1),
}
#: wkv.head_size divides the embedding.
_HEAD_SIZE_DIVIDES = frozenset({"rwkv6", "rwkv7", "arwkv7"})
#: They have blocks with a sliding window, whatever their keys say.
_SLIDING = frozenset({"afmoe", "cohere2", "exaone-moe", "gemma-embedding", "gemma2", "gpt-oss", "llama4"})
#: They have them if there is a window.
_SLIDING_WITH_WINDOW = frozenset({"gemma3", "olmo2", "plamo3", "smallthinker"})
#: Their head size is a divisor before anything else is looked at.
_DIVIDE_BY_HEAD_SIZE = frozenset({"rwkv6qwen2"})
#: What llama.cpp reads with its "key or array" getter: for each key the element types of which b9190 aborts.
#: Other types, and other counts than the blocks', end in a plain error.
_KEY_OR_ARRAY: dict[str, tuple[int, ...]] = {
    "attention.head_count_kv": (F32, STRING),
    "feed_forward_length": (F32, STRING),
    "rope.dimension_sections": (F32, STRING),
}
_MAX_COLLECTED = 1024
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
    _check_divisors(metadata, prefix)
    _check_only_value(metadata, prefix)
    _check_sliding_window(metadata, prefix)
    _check_array_lengths(metadata, prefix)
    deadly_types = {prefix + name: types for name, types in _KEY_OR_ARRAY.items()}
    if metadata.architecture == "apertus":
        deadly_types |= dict.fromkeys(_APERTUS, (U32, I32, STRING))
    for key, deadly in deadly_types.items():
        array = metadata.array(key)
        if array is not None and array.element_type in deadly:
            kind = metadata.values[key].type_name
            message = f"{key} is an {kind}: llama.cpp b9190 aborts of elements of that type."
            metadata.faults.add("M8", metadata.offset(key), key, message)


def _check_divisors(metadata: Metadata, prefix: str) -> None:
    architecture = metadata.architecture
    inner, width = prefix + "ssm.inner_size", prefix + "embedding_length"
    rules = (
        (_RANK_DIVIDES, prefix + "ssm.time_step_rank", inner),
        (_GROUPS_DIVIDE, prefix + "ssm.group_count", inner),
        (_HEAD_SIZE_DIVIDES, prefix + "wkv.head_size", width),
    )
    for architectures, key, of in rules:
        divisor, number = metadata.integer(key) or 0, metadata.integer(of) or 0
        if architecture in architectures and divisor and number % divisor:
            message = f"{key} is {divisor} and does not divide {of}, {number}: llama.cpp would abort."
            metadata.faults.add("M7", metadata.offset(key), key, message)
    key = prefix + "interleave_moe_layer_step"
    if architecture == "ernie4_5-moe" and metadata.integer(key) == 0:
        metadata.faults.add("M7", metadata.offset(key), key, f"{key} is 0: llama.cpp would abort.")
    key = prefix + "attention.head_count_kv"
    groups, size = metadata.integer(key) or 0, metadata.integer(prefix + "wkv.head_size") or 0
    if architecture == "rwkv6" and groups and size and groups != (metadata.integer(width) or 0) // size:
        message = f"{key} is {groups}, not the number of heads: llama.cpp would abort."
        metadata.faults.add("M7", metadata.offset(key), key, message)


def _check_only_value(metadata: Metadata, prefix: str) -> None:
    name, only = _ONLY_VALUE.get(metadata.architecture, ("", 0))
    number = metadata.number(prefix + name)
    if number is not None and not abs(number - only) < 1e-4:
        key = prefix + name
        message = f"{key} is {number}: llama.cpp aborts unless it is {only:g}."
        metadata.faults.add("M7", metadata.offset(key), key, message)


def _check_sliding_window(metadata: Metadata, prefix: str) -> None:
    """llama.cpp asserts that one of the blocks has a sliding window; older ones do not read the pattern."""
    key, window_key = prefix + "attention.sliding_window_pattern", prefix + "attention.sliding_window"
    window = metadata.integer(window_key) or 0
    if metadata.architecture == "afmoe" and not window:
        message = f"{window_key} is not more than 0: llama.cpp would abort."
        if window_key in metadata.values:
            metadata.faults.add("M7", metadata.offset(window_key), window_key, message)
        else:
            metadata.add_missing("M7", window_key, message)
        return
    slides = metadata.architecture in _SLIDING or (metadata.architecture in _SLIDING_WITH_WINDOW and window)
    if metadata.architecture == "llama4" and window_key in metadata.values and not window:
        # How models say that they have none at all.
        return
    array = metadata.array(key)
    is_none = metadata.integer(key) == 1 or (
        array is not None and bool(array.numbers()) and not any(array.numbers())
    )
    if slides and is_none:
        message = f"{key} leaves no block with a sliding window: llama.cpp would abort."
        metadata.faults.add("M7", metadata.offset(key), key, message)


def _check_array_lengths(metadata: Metadata, prefix: str) -> None:
    """Ollama 0.24 takes the least and the largest of these, and keeps no array of more than 1024 elements."""
    for name in ("attention.head_count", "attention.head_count_kv"):
        array = metadata.array(prefix + name)
        if array is not None and array.element_type in (U32, I32) and not 1 <= array.count <= _MAX_COLLECTED:
            message = f"{array.count} elements: Ollama 0.24's server dies of none, and of more than 1024."
            metadata.faults.add("M8", metadata.offset(prefix + name), prefix + name, message)
