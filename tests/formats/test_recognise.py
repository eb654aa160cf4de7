"""What a file is told to be by its first bytes, and that anything else than a GGUF is refused by its name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
import tarfile
import zipfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest_service.formats import FormatLimits, FormatReader
from ingest_service.formats.recognise import MAGIC_BYTES, format_for, recognise
from ingest_service.vocabulary.errors import FormatInvalid
from ingest_service.vocabulary.reasons import Reason
from tests.ollama_emulator import sample_gguf


def zipped() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"weights")
    return content.getvalue()


def tarred() -> bytes:
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.gguf"))
    return content.getvalue()


#: Real beginnings, and the word that a person has to read.
OTHERS = {
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146", "git lfs pull"),
    "zip": (zipped(), "ZIP"),
    "gzip": (gzip.compress(b"GGUF"), "gzip"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24\x04\x21\x00\x00GGUF", "zstd"),
    "pickle 2": (pickle.dumps({"a": 1}, protocol=2), "pickle"),
    "pickle 3": (pickle.dumps({"a": 1}, protocol=3), "pickle"),
    "pickle 4": (pickle.dumps({"a": 1}, protocol=4), "pickle"),
    "pickle 5": (pickle.dumps({"a": 1}, protocol=5), "pickle"),
    "bzip2": (bz2.compress(b"GGUF"), "bzip2"),
    "xz": (lzma.compress(b"GGUF"), "xz"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04", "7z"),
    "tar": (tarred(), "tar archive"),
    "numpy": (b"\x93NUMPY\x01\0v\0", "NumPy"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0", "HDF5"),
    "tflite": (b"\x1c\0\0\0TFL3\x14\0", "TensorFlow Lite"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x05", "ONNX"),
    "ggmf": (b"fmgg\x01\0\0\0", "GGMF"),
    "ggla": (b"algg\x01\0\0\0", "GGLA"),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "XML"),
    "error message": (b'{"error":"Repository not found"}', "JSON"),
    "big-endian gguf": (b"FUGG\x00\x00\x00\x03", "big-endian"),
    "ggml": (b"lmgg\x00", "GGML"),
    "ggjt": (b"tjgg\x03\x00\x00\x00", "GGJT"),
    "html": (b"<!DOCTYPE html><html>", "HTML"),
    "html, indented": (b"\n\n  <html lang=en>", "HTML"),
    "safetensors": (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"__metadata__":{}}', ".safetensors"),
    "text": (b"hello", "does not start with `GGUF`"),
    "lower case": (b"gguf\x03\x00\x00\x00" + bytes(100), "does not start with `GGUF`"),
    "almost": (b"GGU", "does not start with `GGUF`"),
    "zeros": (bytes(MAGIC_BYTES), "does not start with `GGUF`"),
    "nothing": (b"", "does not start with `GGUF`"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_format_is_refused_and_named(name: str) -> None:
    data, word = OTHERS[name]
    with pytest.raises(FormatInvalid) as caught:
        recognise(data[:MAGIC_BYTES], len(data))
    assert word in caught.value.message
    assert caught.value.reason is Reason.FORMAT_INVALID
    assert caught.value.field == "magic"
    assert caught.value.metadata == {"rule": "H1", "offset": "0", "field": "magic"}


def test_every_named_format_is_tried_here() -> None:
    from ingest_service.formats.recognise import _KNOWN_OTHERS

    for at, magic, _ in _KNOWN_OTHERS:
        assert any(data.startswith(magic, at) for data, _ in OTHERS.values()), magic


@pytest.mark.parametrize(
    "file_name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer.model"]
)
@pytest.mark.parametrize("name", OTHERS)
def test_it_is_named_whatever_the_file_is_called(name: str, file_name: str) -> None:
    data, word = OTHERS[name]
    if file_name.endswith(".json") and data.lstrip().startswith(b"{"):
        return
    reader = FormatReader(file_name, max(len(data), 1), FormatLimits())
    # A tar's mark is so far behind its start that one who sends bytes singly is not told of it.
    pieces = [data] if name == "tar" else [bytes([byte]) for byte in data or b"\0"]
    for piece in pieces:
        reader.feed(piece)
    assert reader.error is not None
    # A safetensors that is one has its length read, and refused.
    assert reader.error.metadata["rule"] == ("F2" if word == file_name[5:] else "H1")
    # What the reader of a GGUF says of what it does not know is said by the others in their own words.
    if "does not start" not in word and word != ".safetensors":
        assert word in reader.error.message


def test_a_gguf_is_a_gguf() -> None:
    data = sample_gguf()
    assert recognise(data[:MAGIC_BYTES], len(data)) == "gguf"


@pytest.mark.parametrize("size_bytes", [4, 23])
def test_a_gguf_that_ends_within_its_header_is_refused(size_bytes: int) -> None:
    with pytest.raises(FormatInvalid, match=f"this file has {size_bytes}"):
        recognise(sample_gguf()[:size_bytes], size_bytes)


def test_a_gguf_of_a_header_alone_passes_the_magic() -> None:
    assert recognise(sample_gguf()[:24], 24) == "gguf"


@given(
    st.one_of(st.binary(max_size=MAGIC_BYTES), st.binary(max_size=60).map(b"GGUF".__add__)),
    st.one_of(st.integers(0, 30), st.integers(0, 2**62)),
)
def test_any_bytes_are_a_gguf_or_refused(head: bytes, size_bytes: int) -> None:
    if head[:4] == b"GGUF" and size_bytes >= 24:
        assert recognise(head, size_bytes) == "gguf"
        return
    with pytest.raises(FormatInvalid) as caught:
        recognise(head, size_bytes)
    assert caught.value.message.isprintable()


def safetensors(length: int, header: bytes = b"{}", padding: int = 0) -> bytes:
    return length.to_bytes(8, "little") + header + bytes(padding)


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("model.safetensors", safetensors(2), "safetensors"),
        ("MODEL.SafeTensors", safetensors(10, b'{"a": 1  }', 100), "safetensors"),
        ("config.json", b'{"architectures": []}', "json"),
        ("list.json", b" \r\n\t[1]", "json"),
        ("tokenizer.model", b"\n\x0e\n\x05<unk>", "tokenizer"),
        ("model.gguf", sample_gguf(), "gguf"),
        ("anything", sample_gguf(), "gguf"),
        ("their.model", sample_gguf(), "gguf"),
    ],
)
def test_a_file_is_what_its_name_says(name: str, data: bytes, found: str) -> None:
    assert recognise(data[:MAGIC_BYTES], len(data), name) == format_for(name) == found


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("m.safetensors", sample_gguf(), "it is a GGUF"),
        ("m.safetensors", b"", "no safetensors"),
        ("m.safetensors", safetensors(2)[:8], "no safetensors"),
        ("m.safetensors", safetensors(2, b"[]"), "no safetensors"),
        ("config.json", sample_gguf(), "it is a GGUF"),
        ("config.json", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("config.json", b"<!doctype html>", "HTML"),
        ("tokenizer.model", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("model.gguf", safetensors(2), ".safetensors"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(name: str, data: bytes, word: str) -> None:
    with pytest.raises(FormatInvalid) as caught:
        recognise(data[:MAGIC_BYTES], len(data), name)
    assert word in caught.value.message
    assert caught.value.metadata["rule"] == "H1"
