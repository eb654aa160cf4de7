"""From the `files`, `adapters` and `from` of a create to layers (contract section 3)."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from typing import Any

from . import gguf, names
from .blobs import InvalidDigest, missing
from .convert import convert
from .create_request import APIError
from .eras import Era
from .golang import quote
from .models import Layer
from .parts import Part, Progress, Worker, Workshop, layer_status, media_type

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf\Z")


def detect(shop: Workshop, files: dict[str, str]) -> str:
    """The suffix decides, else the first four bytes. Go's map order is random; ours is the
    order in the request, so a mixed map is decided by its first key."""
    for path, digest in files.items():
        if path.endswith(".safetensors"):
            return "safetensors"
        if path.endswith(".gguf"):
            return "gguf"
        try:
            with shop.blobs.path(digest).open("rb") as file:
                if gguf.sniff(file.read(4)):
                    return "gguf"
        except (InvalidDigest, OSError):
            return ""
    return ""


async def from_files(
    shop: Workshop, files: dict[str, str], out: list[Part], *, adapter: bool = False, draft: bool = False
) -> Worker:
    """Appends to `out`. The statuses of its errors only show where none was sent before."""
    kind = detect(shop, files)
    if draft and kind == "safetensors":
        raise APIError("drafts of safetensors are not modelled by the emulator", 400)
    if kind == "safetensors":
        if shop.version.era is Era.C:
            # The MLX pipeline; an emulated server never has the runtime.
            raise APIError("MLX runtime is not available", 503)
        async with aclosing(convert(shop, files, out, adapter=adapter)) as steps:
            async for progress in steps:
                yield progress
        return
    if kind != "gguf":
        raise APIError("unknown type", 400)
    if adapter and len(files) > 1:
        raise APIError("only one adapter is currently supported", 400)
    found: list[Part] = []
    for path in sorted(files):
        yield Progress("parsing GGUF")
        found.append(
            await load(shop, files[path], path, 400 if adapter or draft else None, "draft" if draft else "")
        )
    found = _merge_shards(found) if shop.version.merges_split_gguf else found
    out += found
    for part in [] if draft else found:
        out += await _template(shop, part)


async def load(shop: Workshop, digest: str, origin: str, status: int | None, forced: str = "") -> Part:
    """`forced` is the layer's kind, whatever the header says."""

    def work() -> Part:
        path = shop.blobs.path(digest)
        if not path.exists():
            raise OSError(missing(path))
        model = gguf.read(path)
        kind = "model"
        if model.kind == "adapter":
            kind = "adapter"
        elif model.is_projector:
            kind = "projector"
        kind = forced or kind
        shop.blobs.touch(digest)
        layer = Layer(media_type(kind), digest, model.size, origin, layer_status(digest, False))
        return Part(layer, model, fresh=True)

    try:
        return await shop.thread(work)
    except gguf.NotGGUF as error:
        raise APIError(str(error), 400) from None
    except (gguf.GGUFError, InvalidDigest, OSError) as error:
        raise APIError(str(error), status) from None


def _merge_shards(parts: list[Part]) -> list[Part]:
    """Shards of one model become its first shard, which remembers the others."""
    out: list[Part] = []
    groups: dict[str, list[Part]] = {}
    for part in parts:
        count = part.gguf.number("split.count") if part.gguf else 0
        if count <= 1:
            out.append(part)
            continue
        name = quote(part.layer.origin)
        match = _SHARD.match(part.layer.origin.rpartition("/")[2])
        if match is None:
            raise APIError(f"split GGUF {name} must use llama.cpp split filename pattern")
        if int(match[3]) != count:
            text = f"filename count {int(match[3])} does not match metadata count {count}"
            raise APIError(f"split GGUF {name} {text}")
        assert part.gguf is not None
        if not part.gguf.has("split.no"):
            raise APIError(f"split GGUF {name} is missing split.no metadata")
        number, index = part.gguf.number("split.no"), int(match[2]) - 1
        if number != index:
            text = f"filename index {index} does not match metadata index {number}"
            raise APIError(f"split GGUF {name} {text}")
        groups.setdefault(f"{part.layer.kind}:{match[1]}:{count}", []).append(part)
    for key, shards in groups.items():
        count = int(key.rpartition(":")[2])
        if len(shards) != count:
            name = quote(shards[0].layer.origin)
            raise APIError(f"split GGUF {name} has {len(shards)} shards, expected {count}")
        shards[0].shards = list(shards)
        out.append(shards[0])
    return out


async def _template(shop: Workshop, part: Part) -> list[Part]:
    """Stand-in for the Levenshtein match: one built-in template, ChatML."""
    chat = part.gguf.kv.get("tokenizer.chat_template") if part.gguf else None
    if not isinstance(chat, str) or "<|im_start|>" not in chat or len(chat) > 400:
        return []
    template = await shop.new_layer(_CHATML, "template")
    template.status = "using autodetected template chatml"
    params = await shop.new_layer(
        b'{"stop":["\\u003c|im_start|\\u003e","\\u003c|im_end|\\u003e"]}\n', "params"
    )
    return [Part(template), Part(params)]


async def from_model(shop: Workshop, text: str, out: list[Part]) -> Worker:
    """`from`: all layers of a local model, and no line of its own."""
    if names.is_cloud(text):
        raise APIError("cloud models are not modelled by the emulator", 400)
    name = names.parse(names.strip_local(text))
    if not name.valid:
        raise APIError("invalid model name", 400)
    base = shop.models.load(name)
    if base is None:
        # An absent model triggers a registry pull inside create; the emulator has no registry.
        yield Progress("pulling manifest")
        raise APIError("pull model manifest: file does not exist")
    for layer in base.layers:
        origin = name.shortest
        if layer.kind in ("model", "adapter", "projector", "draft"):
            part = await load(shop, layer.digest, origin, None)
            part.layer.media_type, part.fresh = layer.media_type, False
            out.append(part)
        else:
            status = layer_status(layer.digest, False)
            out.append(Part(Layer(layer.media_type, layer.digest, layer.size, origin, status)))


def base_config(shop: Workshop, text: str) -> dict[str, Any]:
    """What `from` takes over from the base's own config."""
    base = shop.models.load(names.parse(names.strip_local(text)))
    if base is None:
        return {}
    config: dict[str, Any] = json.loads(shop.blobs.read(base.config.digest))
    return config


_CHATML = b"""{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
