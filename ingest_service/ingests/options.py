"""Which create options are taken: an allow-list with types and ranges, so that nothing is silently ignored.

Ollama stores any parameter it is sent and ignores the unknown ones when the model is loaded; it would take
`remote_host` too. So only what is listed here passes. What one target's version cannot do is refused
there, before a byte is pushed to it (`forwarding/eras.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ingest_service.ingests.names import parse_model_name
from ingest_service.vocabulary.errors import NameInvalid, OptionUnsupported
from ingest_service.vocabulary.quantize import GGUF_TYPES, SAFETENSORS_TYPES

MAX_TEXT_BYTES = 1024 * 1024
#: Below gRPC's receive and send limits of 4 MiB, so that an ingest with its files can be answered.
MAX_OPTIONS_BYTES = 3 * 1024 * 1024
MAX_LIST = 1024
MAX_PARAMETERS_BYTES = 128 * 1024
#: Their bytes count with all parameters' together.
_MAX_STOPS = 1000
_FLOAT32 = (2 - 2**-23) * 2.0**127
_MAX_WORD_BYTES = 256
#: What Go's semver package takes, with or without its `v`: `0.14` and `0.14.0-rc1+build` are versions.
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_PART = r"(?:0|[1-9][0-9]*)"
_SEMANTIC_VERSION = re.compile(
    rf"v?{_PART}(?:\.{_PART}(?:\.{_PART}(?:-(?P<pre>{_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?)?)?"
)
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class _Number:
    low: float
    high: float
    is_whole: bool = True

    def says(self, value: object) -> str:
        """What is wrong with the value; "" if nothing."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "it must be a number"
        if self.is_whole and (not math.isfinite(value) or value != int(value)):
            return "it must be a whole number"
        if self.low <= value <= self.high:
            return ""
        low, high = (int(self.low), int(self.high)) if self.is_whole else (self.low, self.high)
        return f"it must be {low} to {high}"


class _Switch:
    @staticmethod
    def says(value: object) -> str:
        """What is wrong with the value; "" if nothing."""
        return "" if isinstance(value, bool) else "it must be true or false"


class _Stops:
    @staticmethod
    def says(value: object) -> str:
        """What is wrong with the value; "" if nothing."""
        is_list = isinstance(value, list) and len(value) <= _MAX_STOPS
        if is_list and all(isinstance(one, str) for one in cast("list[object]", value)):
            return ""
        return f"it must be texts, at most {_MAX_STOPS}"


#: Ollama keeps whatever fits its types, and its engine reads 32 bits of it; so does this service.
_WHOLE = _Number(-(2**31), 2**31 - 1)
_ANY = _Number(-_FLOAT32, _FLOAT32, is_whole=False)

#: Ollama's runtime parameters (its `api.Options`); each is passed on under its own name.
PARAMETERS: Mapping[str, _Number | _Switch | _Stops] = {
    "draft_num_predict": _WHOLE,
    "num_ctx": _WHOLE,
    "num_batch": _WHOLE,
    "num_gpu": _WHOLE,
    "main_gpu": _WHOLE,
    "num_thread": _WHOLE,
    "use_mmap": _Switch(),
    "num_keep": _WHOLE,
    "num_predict": _WHOLE,
    # Ollama's is an int64. It reads any number of a request as a double, which is what a Struct carries.
    "seed": _Number(-(2**63), 2**63),
    "top_k": _WHOLE,
    "top_p": _ANY,
    "min_p": _ANY,
    "typical_p": _ANY,
    "temperature": _ANY,
    "repeat_last_n": _WHOLE,
    "repeat_penalty": _ANY,
    "presence_penalty": _ANY,
    "frequency_penalty": _ANY,
    "stop": _Stops(),
}


def check_options(options: Mapping[str, Any], *, allow_from: bool) -> None:
    """Raises OptionUnsupported, naming the field."""
    for name, value in options.items():
        if name in {"template", "system"}:
            _check_text(value, f"options.{name}")
        elif name == "licenses":
            _check_licenses(value)
        elif name == "messages":
            _check_messages(value)
        elif name == "parameters":
            _check_parameters(value)
        elif name == "quantize":
            _check_quantize(value)
        elif name in {"renderer", "parser"}:
            _check_word(value, f"options.{name}")
        elif name == "requires":
            _check_requires(value)
        elif name == "draft_quantize":
            _check_draft_quantize(value)
        elif name == "from":
            _check_from(value, allow_from=allow_from)
        else:
            raise OptionUnsupported("There is no such create option.", field=f"options.{name}")


def _check_text(text: str, field: str) -> None:
    if _bytes(text) > MAX_TEXT_BYTES:
        raise OptionUnsupported(f"A text has at most {MAX_TEXT_BYTES} bytes.", field=field)


def _check_licenses(licenses: Sequence[str]) -> None:
    if len(licenses) > MAX_LIST:
        raise OptionUnsupported(f"There are at most {MAX_LIST} licenses.", field="options.licenses")
    for index, text in enumerate(licenses):
        _check_text(text, f"options.licenses[{index}]")


def _check_messages(messages: Sequence[Mapping[str, str]]) -> None:
    if len(messages) > MAX_LIST:
        raise OptionUnsupported(f"There are at most {MAX_LIST} messages.", field="options.messages")
    for index, message in enumerate(messages):
        if message.get("role") not in _ROLES:
            raise OptionUnsupported(
                f"A message's role is one of {', '.join(_ROLES)}.", field=f"options.messages[{index}].role"
            )
        _check_text(message.get("content", ""), f"options.messages[{index}].content")


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    for name, value in parameters.items():
        # A name that is none of ours may be anything, and is not repeated at length.
        field = (
            f"options.parameters.{name}" if len(name) <= 64 and name.isprintable() else "options.parameters"
        )
        rule = PARAMETERS.get(name)
        if rule is None:
            raise OptionUnsupported(
                f"There is no such parameter; there are: {', '.join(sorted(PARAMETERS))}.", field=field
            )
        wrong = rule.says(value)
        if wrong:
            raise OptionUnsupported(f"The parameter `{name}` cannot be that: {wrong}.", field=field)


def _check_quantize(text: str) -> None:
    if text.upper() not in GGUF_TYPES and text.lower() not in SAFETENSORS_TYPES:
        raise OptionUnsupported(
            f"One can quantize to {', '.join(GGUF_TYPES)} (Ollama before 0.34.1) or, safetensors from 0.34.1"
            f" on, to {', '.join(SAFETENSORS_TYPES)}.",
            field="options.quantize",
        )


def _check_word(text: str, field: str) -> None:
    """Ollama stores any name of a renderer or parser; which ones there are depends on its version."""
    if _bytes(text) > _MAX_WORD_BYTES or not text.isprintable():
        raise OptionUnsupported(
            f"A name has at most {_MAX_WORD_BYTES} bytes and no control characters.", field=field
        )


def _check_requires(text: str) -> None:
    """As Ollama's own client reads it: its server would store anything."""
    found = _SEMANTIC_VERSION.fullmatch(text) if len(text) <= _MAX_WORD_BYTES else None
    numbers = (one for one in ((found and found["pre"]) or "").split(".") if one.isdecimal())
    if found is None or any(number != "0" and number[0] == "0" for number in numbers):
        raise OptionUnsupported(
            f"It is the lowest version of Ollama that runs the model, e.g. 0.14.0 (semantic versioning), in"
            f" at most {_MAX_WORD_BYTES} bytes.",
            field="options.requires",
        )


def _check_draft_quantize(text: str) -> None:
    if text.upper() not in GGUF_TYPES:
        raise OptionUnsupported(
            f"One can quantize a draft to {', '.join(GGUF_TYPES)} (Ollama 0.30.0 to 0.34.0).",
            field="options.draft_quantize",
        )


def _check_from(text: str, *, allow_from: bool) -> None:
    if not allow_from:
        raise OptionUnsupported(
            "This service builds upon no models that are on the targets: name a file, or have it run with"
            " INGEST_ALLOW_FROM=true.",
            field="options.from",
        )
    try:
        parse_model_name(text, field="options.from")
    except NameInvalid as error:
        raise OptionUnsupported(error.message, field="options.from") from None


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
