"""The vocabulary's rules (V), without keeping the vocabulary: eight bytes a token."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence

_BYTE_TOKEN = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_PARTS = 64
_SMALL = 16_384


class Tokens:
    """The token texts as llama.cpp reads them, in order."""

    def __init__(self) -> None:
        self._hashes = array("q")
        #: The first token that looks like a byte but is none: plamo2 writes where it points to (V6).
        self.odd_byte: int | None = None
        #: Ollama's text of it is another: llama.cpp stops at the NUL.
        self.nul: int | None = None

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, texts: Sequence[bytes]) -> None:
        """Takes the next tokens."""
        first = len(self._hashes)
        # One look at all of them tells that most pieces have nothing that is special.
        joined = b"".join(texts)
        if b"" in texts or b"\0" in joined:
            texts = [self._as_read(first + index, text) for index, text in enumerate(texts)]
        if self.odd_byte is None and b"<0x" in joined:
            for index, text in enumerate(texts):
                if text.startswith(b"<0x") and not _BYTE_TOKEN.fullmatch(text):
                    self.odd_byte = first + index
                    break
        self._hashes.extend(map(hash, texts))

    def _as_read(self, index: int, text: bytes) -> bytes:
        head, nul, _ = text.partition(b"\0")
        if nul and self.nul is None:
            self.nul = index
        # llama.cpp names empty tokens by their place.
        return head or b"[EMPTY_%d]" % index

    def duplicates(self) -> tuple[int, int] | None:
        """The places of two tokens with the same text.

        Two different texts with one 64-bit hash would be told as the same: for the most tokens that are
        allowed the odds are 1 to 30 million, and Python's hash has a secret key: no file can aim at it.
        """
        hashes = self._hashes
        if len(hashes) <= _SMALL:
            return self._places([hashes]) if len(set(hashes)) < len(hashes) else None
        # A set of a million numbers has 100 MB; a part of them at a time is as good.
        parts = [array("q") for _ in range(_PARTS)]
        add = [part.append for part in parts]
        for value in hashes:
            add[value % _PARTS](value)
        return self._places(parts)

    def _places(self, parts: list[array[int]]) -> tuple[int, int] | None:
        for part in parts:
            if len(set(part)) < len(part):
                seen: dict[int, int] = {}
                among = set(part)
                for index, value in enumerate(self._hashes):
                    if value in seen:
                        return seen[value], index
                    if value in among:
                        seen[value] = index
        return None
