"""Rules V: the vocabulary that llama.cpp copies into fixed places."""

from __future__ import annotations

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.types import F32, I8, I32, STRING, U8, U32
from ingest_service.formats.gguf.values import TOKENS, Metadata

_MODEL = "tokenizer.ggml.model"
_CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
_WITHOUT_TOKENS = ("no_vocab", "none")
#: Arrays that are read as four-byte numbers whatever they are, and whether there is one for each token.
_FOUR_BYTES = (
    ("tokenizer.ggml.scores", (F32,), True),
    ("tokenizer.ggml.token_type", (I32, U32), True),
    ("tokenizer.ggml.suppress_tokens", (I32, U32), False),
)


def check_vocabulary(metadata: Metadata, limits: GgufLimits) -> None:
    """The rules V of one model."""
    model = metadata.text(_MODEL)
    if not model:
        refuse("V1", metadata.offset(_MODEL), _MODEL, "The model does not say its tokenizer.")
    _check_tokens(metadata, needed=model not in _WITHOUT_TOKENS)
    _check_companions(metadata)
    _check_charsmap(metadata)
    odd = metadata.tokens.odd_byte
    if odd is not None and model == "plamo2":
        message = f"Token {odd} begins like a byte, <0x00> to <0xFF>, and is none."
        refuse("V6", metadata.offset(TOKENS), TOKENS, message)
    key = metadata.architecture + ".vocab_size"
    size = metadata.values.get(key)
    if size is not None and (size.type != U32 or not 0 <= (metadata.integer(key) or 0) <= limits.max_tokens):
        message = f"A vocabulary of {size.type_name} {size.data}; a u32 up to {limits.max_tokens} can be."
        refuse("V7", size.offset, key, message)


def _check_tokens(metadata: Metadata, *, needed: bool) -> None:
    value, tokens = metadata.values.get(TOKENS), metadata.array(TOKENS)
    if value is None:
        if needed:
            refuse("V1", 0, TOKENS, "The model has no tokens.")
        return
    if tokens is None or tokens.element_type != STRING or not tokens.count:
        refuse("V1", value.offset, TOKENS, f"Tokens are an array of strings, not {value.type_name}.")
    twice = metadata.tokens.duplicates()
    if twice is not None:
        message = f"The tokens {twice[0]} and {twice[1]} have the same text: llama.cpp would abort."
        refuse("V4", value.offset, TOKENS, message)
    if metadata.tokens.nul is not None:
        metadata.warnings.append(f"token {metadata.tokens.nul} has a NUL, where llama.cpp cuts it")


def _check_companions(metadata: Metadata) -> None:
    for key, types, each in _FOUR_BYTES:
        value, array = metadata.values.get(key), metadata.array(key)
        if value is None:
            continue
        if array is None or array.element_type not in types:
            refuse("V2", value.offset, key, f"{value.type_name}: llama.cpp reads four-byte numbers.")
        if each and array.count != len(metadata.tokens):
            message = f"{array.count} elements for {len(metadata.tokens)} tokens."
            refuse("V2", value.offset, key, message)
    key = "tokenizer.ggml.merges"
    merges = metadata.array(key)
    if key in metadata.values and (merges is None or merges.element_type != STRING):
        refuse("V3", metadata.offset(key), key, "Merges are an array of strings.")


def _check_charsmap(metadata: Metadata) -> None:
    value, charsmap = metadata.values.get(_CHARSMAP), metadata.array(_CHARSMAP)
    if value is None:
        return
    if charsmap is None or charsmap.element_type not in (U8, I8):
        refuse("V5", value.offset, _CHARSMAP, "A map of characters is an array of bytes.")
    inner = int.from_bytes(charsmap.head[:4], "little")
    if 4 + inner >= charsmap.count:
        message = f"It says that {inner} of its {charsmap.count} bytes are a table."
        refuse("V5", value.offset + 12, _CHARSMAP, message)
