"""What is kept of the key-value pairs: every key's type, every number, and the texts that somebody needs."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ingest_service.formats.faults import Faults
from ingest_service.formats.gguf.tokens import Tokens
from ingest_service.formats.gguf.types import CODES, NAMES, SIZES

#: Kept of an array: enough for one 32-bit number for each block that a model may have.
ARRAY_HEAD_BYTES = 2048
TEXT_BYTES = 1024
TEMPLATE = "tokenizer.chat_template"
TOKENS = "tokenizer.ggml.tokens"

_KEPT_TEXTS = frozenset(
    {"general.architecture", "general.type", "general.name", "general.license", "general.size_label"}
    | {"tokenizer.ggml.model", "tokenizer.ggml.pre", "adapter.type", "clip.projector_type"}
)
_KEPT_SUFFIXES = (".rope.scaling.type",)
_KEPT_ARRAYS = ("tokenizer.ggml.precompiled_charsmap",)
_KEPT_ARRAY_SUFFIXES = (
    ".head_count",
    ".head_count_kv",
    ".expert_used_count",
    ".sliding_window_pattern",
    ".rope.dimension_sections",
)


@dataclass(frozen=True, slots=True)
class ArrayValue:
    """An array: its elements' type, how many there are, and the first bytes of those it begins with."""

    element_type: int
    count: int
    head: bytes = b""

    def numbers(self) -> tuple[int | float, ...]:
        """The numbers of which the first bytes are kept."""
        count = len(self.head) // SIZES[self.element_type] if self.element_type in SIZES else 0
        return struct.unpack_from(f"<{count}{CODES[self.element_type]}", self.head) if count else ()


@dataclass(frozen=True, slots=True)
class Value:
    """One pair's value; `data` is None if it is a text that nobody needs."""

    type: int
    offset: int
    data: int | float | bool | str | ArrayValue | None = None

    @property
    def type_name(self) -> str:
        if isinstance(self.data, ArrayValue):
            return f"array of {NAMES[self.data.element_type]}"
        return NAMES[self.type]


def is_template(key: str) -> bool:
    return key == TEMPLATE or key.startswith(TEMPLATE + ".")


def keeps_text(key: str) -> bool:
    return key in _KEPT_TEXTS or key.endswith(_KEPT_SUFFIXES)


def keeps_array(key: str) -> bool:
    return key in _KEPT_ARRAYS or key.endswith(_KEPT_ARRAY_SUFFIXES)


class Metadata:
    """All pairs of one file."""

    def __init__(self, faults: Faults) -> None:
        #: Where the rules about the pairs say what is wrong.
        self.faults = faults
        #: All pairs were read: what is not among them is missing.
        self.is_complete = False
        self.values: dict[str, Value] = {}
        self.tokens = Tokens()
        #: `general.type` is none that is known, and a setting says to go on.
        self.is_type_ignored = False
        #: Variant -> text; the plain template's variant is empty.
        self.templates: dict[str, str] = {}
        self.template_bytes = 0
        self.warnings: list[str] = []

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value.data if value and isinstance(value.data, str) else None

    def integer(self, key: str) -> int | None:
        value = self.values.get(key)
        return value.data if value and type(value.data) is int else None

    def number(self, key: str) -> int | float | None:
        value = self.values.get(key)
        return value.data if value and type(value.data) in (int, float) else None  # type: ignore[return-value]

    def array(self, key: str) -> ArrayValue | None:
        value = self.values.get(key)
        return value.data if value and isinstance(value.data, ArrayValue) else None

    def offset(self, key: str) -> int | None:
        """Where the value is; None if there is none."""
        value = self.values.get(key)
        return value.offset if value else None

    def add_missing(self, rule: str, key: str, message: str) -> None:
        """A key has to be there and is not; it is not known to be missing where reading broke off."""
        if self.is_complete:
            self.faults.add(rule, None, key, message)

    def add_missing_policy(self, rule: str, key: str, message: str) -> None:
        """The same, where the rule is a policy."""
        if self.is_complete:
            self.faults.add_policy(rule, None, key, message)

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or ""

    @property
    def is_later_shard(self) -> bool:
        """Shards after the first have no metadata but the split's own."""
        return self.is_shard and (self.integer("split.no") or 0) > 0

    @property
    def is_shard(self) -> bool:
        """A count of 0 or 1 is left in whole models: by merging, or by splitting into one."""
        return (self.integer("split.count") or 0) > 1

    @property
    def is_model(self) -> bool:
        """A model that llama.cpp loads by itself: the rules M and V are for these."""
        kind = self.text("general.type")
        if kind is None and "general.type" not in self.values:
            is_one = self.is_complete
        else:
            is_one = kind == "model" or self.is_type_ignored
        return is_one and self.architecture != "clip" and not self.is_later_shard
