"""GGUF once more, as plainly as it can be said: what the reader accepts is worked out here by other means.

Written from the format's description alone. It checks nothing; a file it cannot read raises.
"""

from __future__ import annotations

import struct
from math import prod

#: Block and bytes, from security.md section 3.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 36),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82),
    23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18),
}  # fmt: skip
_FORMATS = "BbHhIifB--Qqd"


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def unpack(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values

    def string(self) -> bytes:
        (length,) = self.unpack("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, kind: int) -> int | None:
        if kind == 8:
            self.string()
            return None
        if kind == 9:
            element, count = self.unpack("IQ")
            if element == 8:
                for _ in range(count):
                    self.string()
            else:
                self.at += count * struct.calcsize("<" + _FORMATS[element])
            return None
        return self.unpack(_FORMATS[kind])[0]


def ends(data: bytes) -> tuple[int, int]:
    """The two sizes that the file may have."""
    cursor = _Cursor(data)
    _, _, tensors, pairs = cursor.unpack("4sIQQ")
    align = 32
    for _ in range(pairs):
        key = cursor.string()
        value = cursor.value(cursor.unpack("I")[0])
        if key == b"general.alignment" and value:
            align = value
    sizes: list[int] = []
    for _ in range(tensors):
        cursor.string()
        shape = cursor.unpack(f"{cursor.unpack('I')[0]}Q")
        kind, offset = cursor.unpack("IQ")
        block, block_bytes = BLOCKS[kind]
        assert offset == sum(-(-size // align) * align for size in sizes)
        sizes.append(prod(shape) // block * block_bytes)
    if not sizes:
        return cursor.at, cursor.at
    start = -(-cursor.at // align) * align
    before = sum(-(-size // align) * align for size in sizes[:-1])
    return start + before + sizes[-1], start + before + -(-sizes[-1] // align) * align
