"""Manifests on disk (contract section 4) and the questions asked of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .blobs import Blobs
from .golang import dumps
from .names import Name, parse, recase

IMAGE = "application/vnd.ollama.image."
CONFIG = "application/vnd.docker.container.image.v1+json"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Layer:
    media_type: str
    digest: str
    size: int
    origin: str = ""
    status: str = ""

    @property
    def kind(self) -> str:
        """`model`, `template`, `params`, ..."""
        return self.media_type.removeprefix(IMAGE)

    def as_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        return {**out, "from": self.origin} if self.origin else out


@dataclass
class Model:
    """One manifest. `digest` is the hex of the manifest file, never that of the GGUF."""

    name: Name
    config: Layer
    layers: list[Layer] = field(default_factory=list)
    digest: str = ""
    modified_ns: int = 0

    @property
    def size(self) -> int:
        return sum(layer.size for layer in [*self.layers, self.config])

    def of_kind(self, kind: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.kind == kind]

    @property
    def digests(self) -> set[str]:
        return {layer.digest for layer in [*self.layers, self.config]}


class Models:
    """Models by name. Lookups ignore case and add the default parts, as Ollama's do."""

    def __init__(self, folder: Path, blobs: Blobs) -> None:
        self._folder = folder
        self._blobs = blobs
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[Name]:
        found = []
        for path in sorted(self._folder.glob("*/*/*/*")):
            if path.is_file():
                host, namespace, model, tag = path.relative_to(self._folder).parts
                found.append(Name(host, namespace, model, tag))
        return found

    def __iter__(self) -> Iterator[str]:
        return iter([name.shortest for name in self.names()])

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self.find(text) is not None

    def __getitem__(self, text: str) -> Model:
        model = self.find(text)
        if model is None:
            raise KeyError(text)
        return model

    def find(self, text: str) -> Model | None:
        return self.load(recase(parse(text), self.names()))

    def existing(self, name: Name) -> Name:
        return recase(name, self.names())

    def path(self, name: Name) -> Path:
        return self._folder.joinpath(*name.parts)

    def load(self, name: Name) -> Model | None:
        """Exactly this name, part by part."""
        path = self.path(name)
        try:
            raw = path.read_bytes()
            modified = path.stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        data = json.loads(raw)
        layers = [_layer(item) for item in data["layers"]]
        digest = hashlib.sha256(raw).hexdigest()
        return Model(name, _layer(data["config"]), layers, digest, modified)

    def all(self) -> list[Model]:
        return [model for name in self.names() if (model := self.load(name)) is not None]

    def write(self, name: Name, config: Layer, layers: list[Layer]) -> None:
        """Truncates in place, as Ollama does: not atomic, not synced (section 3.5)."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": config.as_json(),
            "layers": [layer.as_json() for layer in layers],
        }
        path.write_bytes(dumps(manifest) + b"\n")

    def copy(self, source: Name, destination: Name) -> None:
        target = self.path(destination)
        if source.parts != destination.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self.path(source).read_bytes())

    def remove(self, name: Name) -> None:
        path = self.path(name)
        path.unlink()
        for parent in path.parents[:3]:
            if any(parent.iterdir()):
                break
            parent.rmdir()

    def used(self) -> set[str]:
        return {digest for model in self.all() for digest in model.digests}

    def remove_layers(self, model: Model) -> list[str]:
        """Deletes at once, with no grace, what no other manifest names (section 3.5)."""
        unused = model.digests - self.used()
        for digest in unused:
            self._blobs.remove(digest)
        return sorted(unused)


def _layer(item: dict[str, Any]) -> Layer:
    return Layer(item["mediaType"], item["digest"], item["size"], item.get("from", ""))
