"""What a file is, from its first bytes; what is no model file is named as what it is.

This version looks at the magic only. The whole header comes with the GGUF reader.
"""

from __future__ import annotations

from ingest_service.vocabulary.errors import FormatInvalid

#: As many bytes as `recognise` wants to see; a shorter file is judged by what there is.
MAGIC_BYTES = 64

GGUF = "gguf"

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


def recognise(head: bytes, size_bytes: int) -> str:
    """The format of a file of `size_bytes` that starts with `head` (its first MAGIC_BYTES, or all of it).

    Raises FormatInvalid with rule, offset and field.
    """
    if head.startswith(b"GGUF"):
        if size_bytes < _GGUF_HEADER_BYTES:
            raise _fault(
                "H1", f"A GGUF header has at least {_GGUF_HEADER_BYTES} bytes; this file has {size_bytes}."
            )
        return GGUF
    raise _fault("H1", f"This is no GGUF file: {_name(head)}.")


def _name(head: bytes) -> str:
    for magic, what in _KNOWN_OTHERS:
        if head.startswith(magic):
            return f"it is {what}"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is an HTML page, probably an error page saved in place of the file"
    if head[8:9] == b"{":
        return "it looks like safetensors, which this version does not take yet"
    return "it does not start with `GGUF`"


def _fault(rule: str, message: str) -> FormatInvalid:
    return FormatInvalid(message, field="magic", metadata={"rule": rule, "offset": "0", "field": "magic"})
