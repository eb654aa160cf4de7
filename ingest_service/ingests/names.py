"""Names from clients: what is accepted, and which of them are one and the same.

Model names follow Ollama's grammar (ollama-contract.md 3.6) less what would reach beyond our own target: no
host part, no reserved tag. Names from clients never become paths (design.md section 4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ingest_service.vocabulary.errors import FileNameInvalid, NameInvalid
from ingest_service.vocabulary.text import clean

_MAX_NAME_CHARACTERS = 80 * 3 + 2
_DEFAULT_NAMESPACE = "library"
_DEFAULT_TAG = "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")
_GRAMMAR = "[namespace/]model[:tag], each part 1 to 80 of ASCII letters, digits, `_`, `-`, `.`"


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model's name: as the client spelt it, with the tag, and as the catalog knows it."""

    display: str
    canonical: str


def parse_model_name(text: str, *, field: str = "model") -> ModelName:
    """The name, or NameInvalid naming `field`.

    Canonical: case-folded (Ollama matches names so), tag present, Ollama's default namespace left out.
    """
    if not text or len(text) > _MAX_NAME_CHARACTERS:
        raise NameInvalid(
            f"A model's name has 1 to {_MAX_NAME_CHARACTERS} characters: {_GRAMMAR}.", field=field
        )
    path, has_tag, tag = text.rpartition(":")
    if not has_tag:
        path, tag = text, _DEFAULT_TAG
    namespace, has_namespace, model = path.rpartition("/")
    if "/" in namespace or ":" in namespace or (has_namespace and "." in namespace):
        raise NameInvalid(
            f"A model's name is {_GRAMMAR}. It has no host: the targets decide where it goes.", field=field
        )
    valid = _PART.fullmatch(model) and _PART.fullmatch(tag)
    if has_namespace:
        valid = valid and _NAMESPACE.fullmatch(namespace)
    if not valid or ".." in text:
        raise NameInvalid(f"`{clean(text, 100)}` is no model name: {_GRAMMAR}.", field=field)
    folded_tag = tag.lower()
    if folded_tag in {"cloud", "local"} or folded_tag.endswith("-cloud"):
        raise NameInvalid(f"The tag `{tag}` is reserved by Ollama; choose another.", field=field)
    display = f"{path}:{tag}"
    canonical = display.lower().removeprefix(f"{_DEFAULT_NAMESPACE}/")
    return ModelName(display, canonical)


def check_file_name(text: str, *, field: str) -> str:
    """`text` if it can name a file within an ingest; FileNameInvalid naming `field` otherwise."""
    if _FILE_NAME.fullmatch(text):
        return text
    raise FileNameInvalid(
        f"`{clean(text, 100)}` is no file name: 1 to 255 of ASCII letters, digits, `.`, `_`, `-`,"
        " no slash, not starting with `.` or `-`.",
        field=field,
    )
