"""Rules V: the vocabulary that llama.cpp copies into fixed places."""

from __future__ import annotations

from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.types import F32, I8, I32, STRING, U8, U32
from ingest_service.formats.gguf.values import TOKENS, Metadata

_MODEL = "tokenizer.ggml.model"
_CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
_WITHOUT_TOKENS = ("no_vocab", "none")
_WITHOUT_MERGES = frozenset({"bert", "llama", "t5", "rwkv", "plamo2", *_WITHOUT_TOKENS})
#: Arrays that are read as four-byte numbers whatever they are, and whether there is one for each token.
_FOUR_BYTES = (
    ("tokenizer.ggml.scores", (F32, I32, U32), True),
    ("tokenizer.ggml.token_type", (I32, U32), True),
    ("tokenizer.ggml.suppress_tokens", (I32, U32), False),
)


def check_vocabulary(metadata: Metadata, limits: GgufLimits) -> None:
    """The rules V of one model."""
    model = metadata.text(_MODEL)
    if not model:
        message = "The model does not say its tokenizer."
        if _MODEL in metadata.values:
            metadata.faults.add("V1", metadata.offset(_MODEL), _MODEL, message)
        else:
            metadata.add_missing("V1", _MODEL, message)
    _check_tokens(metadata, needed=bool(model) and model not in _WITHOUT_TOKENS)
    _check_companions(metadata, limits)
    _check_charsmap(metadata)
    odd = metadata.tokens.odd_byte
    if odd is not None and model == "plamo2":
        message = f"Token {odd} begins like a byte, <0x00> to <0xFF>, and is none."
        metadata.faults.add("V6", metadata.offset(TOKENS), TOKENS, message)
    key = metadata.architecture + ".vocab_size"
    size = metadata.values.get(key)
    # It is read only where there are no tokens.
    if (
        size is not None
        and TOKENS not in metadata.values
        and (size.type != U32 or not 0 <= (metadata.integer(key) or 0) <= limits.max_tokens)
    ):
        message = f"A vocabulary of {size.type_name} {size.data}; a u32 up to {limits.max_tokens} can be."
        metadata.faults.add("V7", size.offset, key, message)


def _check_tokens(metadata: Metadata, *, needed: bool) -> None:
    value, tokens = metadata.values.get(TOKENS), metadata.array(TOKENS)
    if value is None:
        if needed:
            metadata.add_missing("V1", TOKENS, "The model has no tokens.")
        return
    if tokens is None or tokens.element_type != STRING or not tokens.count:
        message = f"Tokens are an array of strings, not {value.type_name}."
        metadata.faults.add("V1", value.offset, TOKENS, message)
        return
    twice = metadata.tokens.duplicates()
    if twice is not None:
        message = f"The tokens {twice[0]} and {twice[1]} have the same text: llama.cpp would abort."
        metadata.faults.add("V4", value.offset, TOKENS, message)
    if metadata.tokens.nul is not None:
        metadata.warnings.append(f"token {metadata.tokens.nul} has a NUL, where llama.cpp cuts it")


def _token_count(metadata: Metadata, limits: GgufLimits) -> int | None:
    """None if it is not known, for there is a fault in the tokens."""
    value, tokens = metadata.values.get(TOKENS), metadata.array(TOKENS)
    if value is None:
        return 0 if metadata.is_complete and metadata.text(_MODEL) in _WITHOUT_TOKENS else None
    is_sound = tokens and tokens.element_type == STRING and 1 <= tokens.count <= limits.max_tokens
    return tokens.count if tokens and is_sound else None


def _check_companions(metadata: Metadata, limits: GgufLimits) -> None:
    tokens = _token_count(metadata, limits)
    for key, types, each in _FOUR_BYTES:
        value, array = metadata.values.get(key), metadata.array(key)
        if value is None:
            continue
        if array is None or array.element_type not in types:
            message = f"{value.type_name}: llama.cpp reads four-byte numbers."
            metadata.faults.add("V2", value.offset, key, message)
        elif each and tokens is not None and array.count < tokens:
            message = f"{array.count} elements for {tokens} tokens."
            metadata.faults.add("V2", value.offset, key, message)
    key = "tokenizer.ggml.merges"
    merges = metadata.array(key)
    reads_merges = metadata.text(_MODEL) not in _WITHOUT_MERGES
    if reads_merges and key in metadata.values and (merges is None or merges.element_type != STRING):
        metadata.faults.add("V3", metadata.offset(key), key, "Merges are an array of strings.")


def _check_charsmap(metadata: Metadata) -> None:
    value, charsmap = metadata.values.get(_CHARSMAP), metadata.array(_CHARSMAP)
    # Others than Unigram's tokenizers do not read it.
    if value is None or metadata.text(_MODEL) != "t5":
        return
    if charsmap is None or charsmap.element_type not in (U8, I8):
        message = "A map of characters is an array of bytes."
        metadata.faults.add("V5", value.offset, _CHARSMAP, message)
        return
    inner = int.from_bytes(charsmap.head[:4], "little")
    if 4 + inner >= charsmap.count:
        message = f"It says that {inner} of its {charsmap.count} bytes are a table."
        metadata.faults.add("V5", value.offset + 12, _CHARSMAP, message)
