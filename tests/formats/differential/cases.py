"""Generated files: a sound one with one to three things changed. The same seed makes the same files."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ingest_service.formats.gguf.types import CODES
from tests.formats.build import (
    BOOL,
    F32,
    F64,
    I8,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    Gguf,
    Tensor,
    array,
    counted,
    number,
    numbers,
    text,
    texts,
    u32,
)
from tests.formats.differential.bases import Base

Change = Callable[[random.Random, Gguf], tuple[str, Gguf]]
_INTEGERS = (U8, I8, U16, I32, U32, I64, U64)
_EDGES = (0, 1, 2, 3, 5, 7, 8, 16, 31, 33, 64, 100, 128, 255, 1000, 4096, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
_FLOATS = (0.0, -0.0, -1.0, 1.0, 1e-30, 1e30, math.nan, math.inf, -math.inf)
_COUNTS = (0, 1, 2, 3, 5, 100, 2**31, 2**32, 2**61, 2**63, 2**64 - 1)
_SIZES = (
    0,
    1,
    2,
    3,
    31,
    32,
    33,
    64,
    255,
    256,
    2**16,
    2**31,
    2**32,
    2**40,
    2**61,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_STRINGS = (
    "",
    "x",
    "llama",
    "\u00fc",
    "a" * 70,
    "none",
    "linear",
    "yarn",
    "default",
    "model",
    "a b",
    "<0x00>",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One file. `size_bytes` is None if it has the size that its tensors say."""

    what: str
    file: Gguf
    data: bytes | None = None
    size_bytes: int | None = None


def _wrapped(kind: int, value: int) -> int:
    bits = 8 * struct.calcsize("<" + CODES[kind])
    low = -(1 << (bits - 1)) if kind in (I8, I32, I64) else 0
    return (value - low) % (1 << bits) + low


def _number_of(rng: random.Random, kind: int) -> bytes:
    if kind in (F32, F64):
        return number(kind, rng.choice(_FLOATS))
    if kind == BOOL:
        return number(kind, rng.choice((0, 1, 1, 2, 255)))
    return number(kind, _wrapped(kind, rng.choice(_EDGES)))


def any_value(rng: random.Random) -> bytes:
    """A value of any type."""
    choice = rng.random()
    if choice < 0.5:
        return _number_of(rng, rng.choice((*_INTEGERS, F32, F64, BOOL, U32, U32)))
    if choice < 0.65:
        return text(rng.choice(_STRINGS))
    if choice < 0.75:
        return texts([rng.choice(_STRINGS) for _ in range(rng.choice((0, 1, 2, 3, 5)))])
    kind = rng.choice((U32, I32, I32, F32, U8, U16, I64, U64, F64, BOOL))
    count = rng.choice((0, 1, 2, 3, 4, 5, 8, 22))
    if kind in (F32, F64):
        return numbers(kind, [rng.choice(_FLOATS) for _ in range(count)])
    if kind == BOOL:
        return numbers(kind, [rng.choice((0, 1)) for _ in range(count)])
    return numbers(kind, [_wrapped(kind, rng.choice((0, 1, 2, 3, 4, 64, *_EDGES))) for _ in range(count)])


def _near(rng: random.Random, value: bytes) -> bytes:
    """A value of the same type, if it is a number: what a converter could have written wrongly."""
    (kind,) = struct.unpack_from("<I", value)
    if kind not in CODES or rng.random() < 0.2:
        return any_value(rng)
    if kind in (F32, F64, BOOL):
        return _number_of(rng, kind)
    (old,) = struct.unpack_from("<" + CODES[kind], value, 4)
    new = rng.choice((0, old + 1, old - 1, old * 2, old // 2, old * 3, *_EDGES))
    if kind == U32 and rng.random() < 0.25:
        # As many models have it: one for each block.
        count = rng.choice((0, 1, 2, 2, 2, 3, 4, 5, 22))
        return numbers(
            rng.choice((U32, I32)), [min(rng.choice((new, old, 0)), 2**31 - 1) for _ in range(count)]
        )
    return number(kind, _wrapped(kind, new))


def other_value(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    """Another value for a key that is there."""
    key = rng.choice(list(file.pairs))
    return f"{key} changed", file.but({key: _near(rng, file.pairs[key])})


def without_key(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    key = rng.choice(list(file.pairs))
    return f"{key} missing", file.but({key: None})


def added_key(names: Sequence[str]) -> Change:
    """A key that llama.cpp knows, with any value."""

    def change(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
        name = rng.choice(names)
        return f"{name} added", file.but({name: any_value(rng)})

    return change


def vocabulary_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    """Arrays of another length, with doubles, empty strings, NULs and bytes that are none."""
    key = "tokenizer.ggml." + rng.choice(
        ("tokens", "tokens", "scores", "token_type", "merges", "precompiled_charsmap")
    )
    count = rng.choice((0, 1, 2, 31, 32, 33, 32, 32))
    if key.endswith("charsmap"):
        inner = rng.choice((0, 1, 4, 8, 100, 2**31, 2**32 - 1))
        size = rng.choice((0, 1, 3, 4, 5, 8, 12, 64))
        content = (struct.pack("<I", inner) + bytes(size))[: size if size < 4 else None]
        return key, file.but({key: array(rng.choice((U8, I8, U8, I32)), content, len(content))})
    if key.endswith("merges"):
        some = [
            rng.choice(("a b", "a", "", " ", "a b c", "\u010a a", "x" * 300 + " y", " a"))
            for _ in range(count)
        ]
        return key, file.but({key: texts(some)})
    if key.endswith("tokens"):
        words: list[str | bytes] = [f"t{index}" for index in range(count)]
        for _ in range(rng.choice((0, 1, 2, 3))):
            odd = rng.choice(
                (b"", b"t0", b"\0", b"a\0b", b"\xff\xfe", b"<0x", b"<0xZZ>", b"<0x0A>", b"[EMPTY_1]", b"\n")
            )
            if words:
                words[rng.randrange(len(words))] = odd
        return key, file.but({key: texts(words)})
    kind = rng.choice((F32, I32, U32, I32, F64, U8))
    values = [rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 100)) for _ in range(count)]
    return key, file.but({key: numbers(kind, values)})


def tokenizer_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    model = rng.choice(
        ("gpt2", "llama", "bert", "t5", "rwkv", "none", "no_vocab", "plamo2", "gemma4", "x", "", "test")
    )
    return f"tokenizer {model}", file.but({"tokenizer.ggml.model": text(model)})


def tensor_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    """One tensor with another name, shape, type or place."""
    tensors = list(file.tensors)
    if not tensors:
        return "a tensor added", replace(file, tensors=(Tensor("t", (32,)),))
    index = rng.randrange(len(tensors))
    old = tensors[index]
    what = rng.choice(
        ("name", "shape", "type", "offset", "dimensions", "twice", "gone", "swap", "name length")
    )
    if what == "name":
        names: tuple[str | bytes, ...] = (
            "",
            "x" * 63,
            "x" * 64,
            "x" * 65,
            "a\0b",
            b"\xff",
            tensors[0].name,
            "blk.9.x",
            " ",
        )
        tensors[index] = replace(old, name=rng.choice(names))
    elif what == "name length":
        tensors[index] = replace(old, name_length=rng.choice(_COUNTS))
    elif what == "shape":
        shape = list(old.shape) or [1]
        shape[rng.randrange(len(shape))] = rng.choice(_SIZES)
        tensors[index] = replace(old, shape=tuple(shape))
    elif what == "type":
        tensors[index] = replace(old, kind=rng.choice((*range(46), 100, 2**31, 2**32 - 1)))
    elif what == "offset":
        offset = rng.choice((0, 1, 16, 32, 64, 96, 128, 1 << 20, 2**62, 2**64 - 32))
        tensors[index] = replace(old, offset=offset)
    elif what == "dimensions":
        count = rng.choice((0, 1, 2, 3, 4, 5))
        tensors[index] = replace(old, shape=(*old.shape, 1, 1, 1, 1, 1)[:count], dimensions=count)
    elif what == "twice":
        tensors.append(old)
    elif what == "gone":
        del tensors[index]
    else:
        rng.shuffle(tensors)
    return f"tensor {what}", replace(file, tensors=tuple(tensors))


def head_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    what = rng.choice(("magic", "version", "tensor count", "pair count"))
    if what == "magic":
        return what, replace(file, magic=rng.choice((b"GGUF", b"FUGG", b"GGML", b"gguf", b"\0\0\0\0")))
    if what == "version":
        return what, replace(
            file, version=rng.choice((0, 1, 2, 2, 3, 4, 5, 2**16, 3 << 24, 2 << 24, 2**32 - 1))
        )
    if what == "tensor count":
        near = len(file.tensors)
        return what, replace(file, tensor_count=max(0, rng.choice((near - 1, near + 1, *_COUNTS))))
    near = len(file.pairs)
    return what, replace(file, pair_count=max(0, rng.choice((near - 1, near + 1, *_COUNTS))))


def key_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    """An odd key, or one that is there twice."""
    keys = (
        b"",
        b"k",
        b"general.name",
        b"k\0",
        b"\xc3\xbc",
        b"k\n",
        b" ",
        b"k" * 64,
        b"k" * 300,
        b"k" * 65_535,
        b"k" * 65_536,
    )
    key = rng.choice((*keys, rng.choice(list(file.pairs) or ["k"]).encode()))
    length = rng.choice(_COUNTS) if rng.random() < 0.2 else None
    return "key", replace(file, extra=(*file.extra, counted(key, length) + any_value(rng)))


def broken_value(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    """Types that do not exist, lengths that are not there, arrays of arrays."""
    what = rng.choice(("type", "string length", "array type", "array length", "array of strings", "bools"))
    if what == "type":
        value = struct.pack("<I", rng.choice((13, 14, 255, 2**31, 2**32 - 1))) + bytes(8)
    elif what == "string length":
        value = text("ab", rng.choice(_COUNTS))
    elif what == "array type":
        value = array(rng.choice((9, 13, 2**32 - 1)), bytes(12), rng.choice((0, 1, 2)))
    elif what == "array length":
        value = numbers(rng.choice((U8, U16, F32, F64)), [1, 2], rng.choice(_COUNTS))
    elif what == "bools":
        value = numbers(BOOL, [rng.choice((0, 1, 2, 255)) for _ in range(3)])
    else:
        value = array(STRING, counted(b"a", rng.choice(_COUNTS)), rng.choice((1, 2, *_COUNTS)))
    return what, file.but({"test.broken": value})


def alignment_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    alignment = rng.choice((0, 1, 2, 4, 8, 16, 32, 48, 64, 4096, 1 << 20, 1 << 21, 2**31, 2**32 - 1))
    kind = rng.choice((U32, U32, U32, U32, U16, U64, I32, F32))
    value = number(kind, _wrapped(kind, alignment) if kind != F32 else float(alignment))
    laid_out = alignment if 0 < alignment <= 1 << 20 and rng.random() < 0.8 else file.alignment
    return f"alignment {alignment}", replace(file.but({"general.alignment": value}), alignment=laid_out)


def split_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    """Some of the split's keys, in any mixture."""
    pairs: dict[str, bytes | None] = {}
    for key in ("split.no", "split.count", "split.tensors.count"):
        if rng.random() < 0.7:
            kind = rng.choice((U16, U16, U16, I32, U32))
            pairs[key] = number(kind, rng.choice((0, 0, 1, 2, 3)))
    return "split keys", file.but(pairs)


def architecture_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    value = rng.choice(
        (text("llama"), text(""), text("x/y"), text("a" * 65), text("clip"), u32(1), text("no such"))
    )
    return "architecture", file.but({"general.architecture": value})


def kind_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    kinds = ("model", "adapter", "mmproj", "imatrix", "dataset", "vocab", "", "Model", "projector")
    return "type", file.but({"general.type": rng.choice((text(rng.choice(kinds)), u32(1)))})


STRUCTURE: tuple[Change, ...] = (
    head_changed,
    key_changed,
    broken_value,
    alignment_changed,
    split_changed,
    tensor_changed,
    tensor_changed,
    tensor_changed,
    other_value,
    without_key,
    architecture_changed,
    kind_changed,
)


def changed(rng: random.Random, file: Gguf, changes: Sequence[Change], most: int = 3) -> tuple[str, Gguf]:
    """One to `most` of the changes, one most often."""
    said = []
    for _ in range(rng.choices(range(1, most + 1), [4**-power for power in range(most)])[0]):
        what, file = rng.choice(changes)(rng, file)
        said.append(what)
    return ", ".join(said), file


def headers(seed: int, count: int, bases: Sequence[Gguf]) -> Iterator[Case]:
    """Files whose structure is odd."""
    for index in range(count):
        rng = random.Random(f"header {seed} {index}")
        base = rng.choice(bases)
        if rng.random() < 0.12:
            yield _bytes_changed(rng, base)
            continue
        what, file = changed(rng, base, STRUCTURE)
        size = None
        if rng.random() < 0.15:
            end = file.min_size_bytes
            size = max(
                0,
                rng.choice(
                    (end, end + -end % 32, end - 1, end + 1, len(file.header), file.max_size_bytes + 32)
                ),
            )
            what += ", size"
        yield Case(what, file, size_bytes=size)


def _bytes_changed(rng: random.Random, base: Gguf) -> Case:
    data = bytearray(base.file())
    header = len(base.header)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.randrange(header)
        data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, data[place] ^ 1, rng.randrange(256)))
    if rng.random() < 0.2:
        del data[rng.randrange(header) :]
    return Case("bytes", base, bytes(data))


def model_changes(keys: Sequence[str]) -> tuple[Change, ...]:
    return (
        other_value,
        other_value,
        other_value,
        without_key,
        added_key(keys),
        vocabulary_changed,
        tokenizer_changed,
        alignment_changed,
    )


def models(seed: int, count: int, bases: Sequence[Base], keys: Sequence[str]) -> Iterator[tuple[Base, Case]]:
    """Complete models with odd numbers; `keys` are the names of keys after the architecture's."""
    for index in range(count):
        rng = random.Random(f"model {seed} {index}")
        base = bases[index % len(bases)]
        names = [f"{base.architecture}.{key}" for key in keys]
        what, file = changed(rng, base.file, model_changes(names))
        yield base, Case(f"{base.architecture}: {what}", file)
