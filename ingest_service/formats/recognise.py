"""What a file is, from its first bytes; what is no model file is named as what it is.

Its name says what it has to be: Ollama goes by the suffix. The readers of GGUF and safetensors then read the
whole header.
"""

from __future__ import annotations

from ingest_service.vocabulary.errors import FormatInvalid

#: As many bytes as `recognise` wants to see; a shorter file is judged by what there is.
MAGIC_BYTES = 64

GGUF = "gguf"
SAFETENSORS = "safetensors"
JSON = "json"
TOKENIZER = "tokenizer"

#: The safetensors format's own limit, and Ollama allocates what the length says (contract section 7).
_MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
_SENTENCEPIECE = b"\n"
#: security.md H1: magic, version and two counts.
_GGUF_HEADER_BYTES = 24

_KNOWN_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to: run `git lfs pull`"),
    (b"PK\x03\x04", "a ZIP archive (or a PyTorch checkpoint): convert the model to GGUF"),
    (b"\x1f\x8b", "gzip-compressed: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed: decompress it first"),
    (b"\x80\x02", "a Python pickle: convert the model to GGUF"),
    (b"\x80\x03", "a Python pickle: convert the model to GGUF"),
    (b"\x80\x04", "a Python pickle: convert the model to GGUF"),
    (b"\x80\x05", "a Python pickle: convert the model to GGUF"),
    (b"FUGG", "a big-endian GGUF, which Ollama cannot use"),
    (b"lmgg", "an old GGML file: convert the model to GGUF"),
    (b"tjgg", "an old GGJT file: convert the model to GGUF"),
)


def format_for(file_name: str) -> str:
    """What a file of that name has to be: everything but the parts of a safetensors set is a GGUF."""
    folded = file_name.lower()
    if folded.endswith(".safetensors"):
        return SAFETENSORS
    if folded.endswith(".json"):
        return JSON
    return TOKENIZER if folded == "tokenizer.model" else GGUF


def recognise(head: bytes, size_bytes: int, file_name: str = "") -> str:
    """The format of a file of `size_bytes` that starts with `head` (its first MAGIC_BYTES, or all of it).

    Raises FormatInvalid with rule, offset and field, also if it is not what its name says.
    """
    wanted = format_for(file_name)
    if wanted == SAFETENSORS:
        _check_safetensors(head, size_bytes)
    elif wanted == JSON:
        if not head.lstrip(b" \t\r\n").startswith((b"{", b"[")):
            raise _fault("H1", f"This is no JSON file: {_name(head)}.")
    elif wanted == TOKENIZER:
        if not head.startswith(_SENTENCEPIECE):
            raise _fault("H1", f"This is no SentencePiece tokenizer: {_name(head)}.")
    elif not head.startswith(b"GGUF"):
        raise _fault("H1", f"This is no GGUF file: {_name(head)}.")
    elif size_bytes < _GGUF_HEADER_BYTES:
        raise _fault(
            "H1", f"A GGUF header has at least {_GGUF_HEADER_BYTES} bytes; this file has {size_bytes}."
        )
    return wanted


def _check_safetensors(head: bytes, size_bytes: int) -> None:
    """Eight bytes of length, little-endian, then a JSON object of that length that fits into the file."""
    if len(head) < 9 or head[8:9] != b"{":
        raise _fault("H1", f"This is no safetensors file: {_name(head)}.")
    length = int.from_bytes(head[:8], "little")
    if not 2 <= length <= min(_MAX_SAFETENSORS_HEADER_BYTES, size_bytes - 8):
        raise _fault(
            "H1", f"A safetensors header of {length} bytes cannot be in this file of {size_bytes} bytes."
        )


def _name(head: bytes) -> str:
    for magic, what in _KNOWN_OTHERS:
        if head.startswith(magic):
            return f"it is {what}"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is an HTML page, probably an error page saved in place of the file"
    if head.startswith(b"GGUF"):
        return "it is a GGUF"
    if head[8:9] == b"{":
        return "it looks like safetensors, whose names end in `.safetensors`"
    return "it does not start with `GGUF`"


def _fault(rule: str, message: str) -> FormatInvalid:
    return FormatInvalid(message, field="magic", metadata={"rule": rule, "offset": "0", "field": "magic"})
