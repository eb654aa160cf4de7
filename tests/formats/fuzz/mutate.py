"""Mutations without a library: of the corpus, and of what had a verdict of its own."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

_NUMBERS = (0, 1, 2, 8, 9, 13, 32, 64, 255, 256, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32)
_LARGE = (*_NUMBERS, 1 << 61, (1 << 62) - 4, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 16, (1 << 64) - 1)
_WORDS = {
    "gguf": (b"general.alignment", b"general.type", b"adapter", b"<0x", b"\0", b"split.no", b"[EMPTY_1]"),
    "safetensors": (b'"dtype"', b'"shape"', b'"F4"', b"[0,0]", b"{", b"}", b"\\u0061", b"\\", b'"', b",",
                    b"-0"),
    "json": (b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"NaN", b"1e9", b"-1", b"\\ud800", b"\xff",
             b'"type"', b'"architectures"', b'"Vocab_Size"', b"0", b" ", b'"a":1,', b'["a","b"],'),
    "template": (b"{{", b"}}", b"{%", b"%}", b"{#", b"#}", b"-", b"(", b")", b"[", b"'__class__'",
                 b".__init__", b" ~ ", b"|attr(", b"|join", b"{% for i in x %}", b"{% endfor %}",
                 b"{% if a %}", b"{% endif %}", b"range(1000000000)", b"*", b"**", b"not ",
                 b"\\x5f", b"_", b"{% set a = a ~ a %}", b"m()"),
    "sentencepiece": (b"\x0a\x00", b"\x0a\x0a", b"\xff\xff\xff\x0f", b"\x0b", b"\x18\x01", b"\x15", b"\0"),
}  # fmt: skip
MAX_BYTES = 4096


class Mutator:
    """An endless row of inputs; `keep` adds one to those it starts from."""

    def __init__(self, kind: str, seeds: list[bytes], seed: int) -> None:
        self._random = random.Random(seed)
        self._words = _WORDS[kind]
        #: What comes before is soon checked: it is hit less often.
        self._start = {"gguf": 24, "safetensors": 9}.get(kind, 0)
        self._has_length = kind == "safetensors"
        self._pool = list(seeds)

    def keep(self, data: bytes) -> None:
        if len(self._pool) < 2000:
            self._pool.append(data)

    def __iter__(self) -> Iterator[bytes]:
        draw = self._random
        while True:
            data = bytearray(draw.choice(self._pool))
            for _ in range(draw.choice((1, 1, 1, 2, 4))):
                self._change(data)
            if self._has_length and len(data) > 8 and draw.random() < 0.8:
                # A length that is right: else nearly all end at the first rule.
                end = data.rfind(b"}") + 1
                data[:8] = struct.pack("<Q", max(0, end - 8))
            yield bytes(data[:MAX_BYTES])

    def _change(self, data: bytearray) -> None:
        draw = self._random
        place = draw.randrange(len(data) + 1)
        if place < self._start < len(data) and draw.random() < 0.9:
            place = draw.randrange(self._start, len(data))
        kind = draw.randrange(8)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and place < len(data):
            data[place] = draw.randrange(256)
        elif kind == 2:
            data[place : place + 4] = struct.pack("<I", draw.choice(_NUMBERS) & 0xFFFFFFFF)
        elif kind == 3:
            data[place : place + 8] = struct.pack("<Q", draw.choice(_LARGE))
        elif kind == 4:
            data[place : place + draw.randrange(12)] = b""
        elif kind == 5:
            data[place : place + draw.choice((0, 0, 1, 4))] = draw.choice(self._words)
        elif kind == 6:
            end = place + draw.randrange(40)
            data[place:place] = data[place:end]
        else:
            other = draw.choice(self._pool)
            start = draw.randrange(len(other) + 1)
            data[place : place + draw.randrange(20)] = other[start : start + draw.randrange(40)]
