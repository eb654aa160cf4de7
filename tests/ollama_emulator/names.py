"""Model names: grammar, defaults, shortest form, re-casing (contract section 3.6)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

# A part that a separator promised but that is empty; `!` makes it invalid everywhere.
_MISSING = "!MISSING!"
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}\Z")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}\Z")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}\Z")
DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"


def _cut(text: str, separator: str) -> tuple[str, str] | None:
    before, found, after = text.rpartition(separator)
    return (before or _MISSING, after or _MISSING) if found else None


@dataclass(frozen=True, order=True)
class Name:
    host: str = DEFAULT_HOST
    namespace: str = DEFAULT_NAMESPACE
    model: str = ""
    tag: str = "latest"

    @property
    def valid(self) -> bool:
        return bool(
            _HOST.match(self.host)
            and _NAMESPACE.match(self.namespace)
            and _PART.match(self.model)
            and _PART.match(self.tag)
        )

    @property
    def parts(self) -> tuple[str, str, str, str]:
        return (self.host, self.namespace, self.model, self.tag)

    @property
    def full(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def shortest(self) -> str:
        """What show and tags answer: no default parts, but always a tag."""
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{short}"

    def same_as(self, other: Name) -> bool:
        return [part.lower() for part in self.parts] == [part.lower() for part in other.parts]


def parse(text: str) -> Name:
    """Parses any string; an impossible one gives a Name that is not `valid`."""
    tag = host = namespace = ""
    if text.rfind(":") > text.rfind("/"):
        cut = _cut(text, ":")
        assert cut is not None
        text, tag = cut
    model = text
    if (cut := _cut(text, "/")) is not None:
        text, model = cut
        namespace = text
        if (cut := _cut(text, "/")) is not None:
            text, namespace = cut
            scheme, found, rest = text.partition("://")
            host = rest if found else scheme
    return Name(host or DEFAULT_HOST, namespace or DEFAULT_NAMESPACE, model, tag or "latest")


def recase(name: Name, existing: Iterable[Name]) -> Name:
    """Part by part, as the server does: `Foo:LATEST` may end up as `Foo:latest`."""
    for other in existing:
        if other.host.lower() == name.host.lower():
            name = replace(name, host=other.host)
        if other.namespace.lower() == name.namespace.lower():
            name = replace(name, namespace=other.namespace)
        if other.model.lower() == name.model.lower():
            name = replace(name, model=other.model)
        if other.tag.lower() == name.tag.lower():
            name = replace(name, tag=other.tag)
    return name


def is_cloud(text: str) -> bool:
    """Tags `cloud` and `*-cloud` select ollama.com in show and delete."""
    _, found, suffix = text.strip().rpartition(":")
    suffix = suffix.strip().lower()
    return bool(found) and "/" not in suffix and (suffix == "cloud" or suffix.endswith("-cloud"))


def strip_local(text: str) -> str:
    """Tag `local` selects this server and is no tag at all outside of create."""
    before, found, suffix = text.strip().rpartition(":")
    return before if found and suffix.strip().lower() == "local" else text.strip()
