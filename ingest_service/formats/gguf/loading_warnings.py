"""What llama.cpp refuses to load with a plain error: told as warnings, for no program dies of it."""

from __future__ import annotations

import re

from ingest_service.formats.gguf.tensors import Tensors
from ingest_service.formats.gguf.values import Metadata

_BLOCK = re.compile(rb"blk\.(\d{1,4})\.")
_PER_BLOCK = ("attention.head_count", "attention.head_count_kv", "feed_forward_length", "expert_used_count")
#: llama.cpp wants their rope dimension to be the whole head.
_WHOLE_HEAD_ROPE = frozenset({"llama", "deci", "falcon", "llama-embed"})


def loading_warnings(metadata: Metadata, tensors: Tensors) -> list[str]:
    """Of a model; at most a few."""
    prefix = metadata.architecture + "."
    found: list[str] = []
    blocks = metadata.integer(prefix + "block_count") or 0
    for name in _PER_BLOCK:
        array = metadata.array(prefix + name)
        if array is not None and array.count != blocks:
            found.append(f"{prefix}{name} has {array.count} numbers for {blocks} blocks")
    there = {int(match[1]) for match in map(_BLOCK.match, tensors.names) if match}
    if there and not metadata.is_shard and max(there) + 1 < blocks:
        found.append(f"{prefix}block_count is {blocks}; there are tensors of {max(there) + 1} blocks")
    found += _heads(metadata, prefix)
    if metadata.text("tokenizer.ggml.model") == "gpt2" and "tokenizer.ggml.merges" not in metadata.values:
        found.append("tokenizer.ggml.merges is missing, which a tokenizer of type gpt2 needs")
    return [f"{text}: llama.cpp does not load that" for text in found]


def _heads(metadata: Metadata, prefix: str) -> list[str]:
    width = metadata.integer(prefix + "embedding_length") or 0
    heads = metadata.integer(prefix + "attention.head_count")
    of_keys = metadata.integer(prefix + "attention.head_count_kv")
    found = []
    if heads and of_keys is not None and not 1 <= of_keys <= heads:
        found.append(f"{prefix}attention.head_count_kv is {of_keys} of {heads} heads")
    if heads and heads > width:
        found.append(f"{prefix}attention.head_count is {heads} in an embedding of {width}")
    elif heads and metadata.architecture in _WHOLE_HEAD_ROPE:
        size = metadata.integer(prefix + "attention.key_length")
        rope = metadata.integer(prefix + "rope.dimension_count")
        if rope is not None and rope != (size if size is not None else width // heads):
            found.append(f"{prefix}rope.dimension_count is {rope}, not the size of a head")
    return found
