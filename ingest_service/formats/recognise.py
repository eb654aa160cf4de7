"""What a file is, from its first bytes; what is no model file is named as what it is.

Its name says what it has to be: Ollama goes by the suffix. The readers of GGUF and safetensors then read the
whole header.
"""

from __future__ import annotations

import re

from ingest_service.formats.faults import Faults
from ingest_service.vocabulary.errors import FormatInvalid

#: As many bytes as `recognise` wants to see, for tar's mark comes late; a shorter file is judged by what
#: there is.
MAGIC_BYTES = 264
#: With so many it is decided: who sends a few bytes at a time is not to wait for a tar's name.
DECIDING_BYTES = 64

GGUF = "gguf"
SAFETENSORS = "safetensors"
JSON = "json"
TOKENIZER = "tokenizer"
#: A Jinja chat template, and a tokenizer's words or merges, one a line.
TEMPLATE = "template"
TEXT = "text"
_TEXTS = frozenset({"merges.txt", "vocab.txt"})

_SENTENCEPIECE = b"\n"
#: security.md H1: magic, version and two counts.
_GGUF_HEADER_BYTES = 24

#: Where in the file, the bytes there, and what a person has to know.
_KNOWN_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file it points to: run `git lfs pull`"),
    (0, b"PK\x03\x04", "a ZIP archive (or a PyTorch checkpoint): convert the model to GGUF"),
    (0, b"\x1f\x8b", "gzip-compressed: decompress it first"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed: decompress it first"),
    (0, b"BZh", "bzip2-compressed: decompress it first"),
    (0, b"\xfd7zXZ\0", "xz-compressed: decompress it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it and push the files in it"),
    (0, b"\x80\x02", "a Python pickle: convert the model to GGUF"),
    (0, b"\x80\x03", "a Python pickle: convert the model to GGUF"),
    (0, b"\x80\x04", "a Python pickle: convert the model to GGUF"),
    (0, b"\x80\x05", "a Python pickle: convert the model to GGUF"),
    (0, b"\x93NUMPY", "a NumPy array: convert the model to GGUF"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras): convert the model to GGUF"),
    (4, b"TFL3", "a TensorFlow Lite model, which Ollama cannot use"),
    (0, b"FUGG", "a big-endian GGUF, which Ollama cannot use"),
    (0, b"lmgg", "an old GGML file: convert the model to GGUF"),
    (0, b"fmgg", "an old GGMF file: convert the model to GGUF"),
    (0, b"tjgg", "an old GGJT file: convert the model to GGUF"),
    (0, b"algg", "an old GGLA adapter: convert it to GGUF"),
    (0, b"\xef\xbb\xbf", "text with a byte order mark: save it as UTF-8 without one"),
    (0, b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (0, b"<?xml", "an XML document, probably an error message saved in place of the file"),
)
_HTML = (b"<!doctype", b"<html")
#: What exporters write first: the version of ONNX's format, then their own name.
_ONNX = re.compile(rb"\x08[\x01-\x1f]\x12[\x01-\x3f][A-Za-z]")


def format_for(file_name: str) -> str:
    """What a file of that name has to be: everything but the parts of a safetensors set is a GGUF."""
    folded = file_name.lower()
    if folded.endswith(".safetensors"):
        return SAFETENSORS
    if folded.endswith(".json"):
        return JSON
    if folded.endswith(".jinja"):
        return TEMPLATE
    if folded in _TEXTS:
        return TEXT
    return TOKENIZER if folded == "tokenizer.model" else GGUF


def recognise(head: bytes, size_bytes: int, file_name: str = "") -> str:
    """The format of a file of `size_bytes` that starts with `head` (its first MAGIC_BYTES, or all of it).

    Raises FormatInvalid with rule, offset and field, also if it is not what its name says.
    """
    wanted = format_for(file_name)
    if wanted == SAFETENSORS:
        _check_safetensors(head)
    elif wanted == JSON:
        if not head.lstrip(b" \t\r\n").startswith((b"{", b"[")):
            raise _fault("H1", f"This is no JSON file: {_name(head, '`{`')}.")
    elif wanted == TOKENIZER:
        if not head.startswith(_SENTENCEPIECE) or head.lstrip().lower().startswith(_HTML):
            raise _fault("H1", f"This is no SentencePiece tokenizer: {_name(head, 'a piece')}.")
    elif wanted in {TEMPLATE, TEXT}:
        _check_text(head)
    elif not head.startswith(b"GGUF"):
        raise _fault("H1", f"This is no GGUF file: {_name(head, '`GGUF`')}.")
    elif size_bytes < _GGUF_HEADER_BYTES:
        raise _fault(
            "H1", f"A GGUF header has at least {_GGUF_HEADER_BYTES} bytes; this file has {size_bytes}."
        )
    return wanted


def _check_safetensors(head: bytes) -> None:
    """Eight bytes of length, then a JSON object; its reader looks at the length."""
    if len(head) < 9 or head[8:9] != b"{":
        raise _fault("H1", f"This is no safetensors file: {_name(head, 'a length and `{`')}.")


def _check_text(head: bytes) -> None:
    """A text may begin with anything, but a byte order mark is part of no template and no word.

    Ollama takes any file that begins with `GGUF` for the model.
    """
    if _known(head) or head.startswith(b"GGUF") or head.lstrip().lower().startswith(_HTML):
        raise _fault("H1", f"This is no text file of a model: {_name(head, 'a text')}.")


def _known(head: bytes) -> str:
    """What it begins like, if that is known; else empty."""
    return next((what for at, magic, what in _KNOWN_OTHERS if head.startswith(magic, at)), "")


def _name(head: bytes, wanted: str) -> str:
    """What it is instead; `wanted` is what it would begin with."""
    if what := _known(head):
        return f"it is {what}"
    if _ONNX.match(head):
        return "it looks like an ONNX model, which Ollama cannot use"
    if head.startswith(b"GGUF"):
        return "it is a GGUF"
    text = head.lstrip()
    if text.lower().startswith(_HTML):
        return "it is an HTML page, probably an error page saved in place of the file"
    if text.startswith((b'{"', b"{\n", b"{\r\n", b"{ ")):
        return "it is JSON, perhaps an error message saved in place of the file"
    looks_safe = head[8:9] == b"{"
    return (
        "it looks like safetensors, whose names end in `.safetensors`"
        if looks_safe
        else f"it does not start with {wanted}"
    )


def _fault(rule: str, message: str) -> FormatInvalid:
    faults = Faults()
    faults.add(rule, 0, "magic", message)
    return faults.as_error()
