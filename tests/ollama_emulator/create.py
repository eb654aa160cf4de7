"""The worker behind `POST /api/create`: yields what it does, raises what stops it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from .create_request import APIError, CreateRequest
from .golang import dumps, human_number
from .models import CONFIG, Layer
from .parts import Part, Progress, Worker, Workshop
from .rewrite import finish
from .sources import base_config, from_files, from_model


async def create(shop: Workshop, request: CreateRequest) -> Worker:
    """Section 3.3's sequences. The manifest is written after `writing manifest` was taken."""
    name = shop.models.existing(request.name)
    old = shop.models.load(name)
    base: dict[str, Any] = {}
    parts: list[Part] = []
    files = request.mapping("files")
    if request.text("from"):
        # `from` wins over `files` silently.
        async with aclosing(from_model(shop, request.text("from"), parts)) as steps:
            async for progress in steps:
                yield progress
        base = base_config(shop, request.text("from"))
    elif files is not None:
        async with aclosing(from_files(shop, files, parts, adapter=False)) as steps:
            async for progress in steps:
                yield progress
    else:
        raise APIError("neither 'from' or 'files' was specified", 400)
    # The drafts are parsed before the adapters; their layers come after them.
    drafts: list[Part] = []
    draft_files = request.mapping("draft_files")
    if draft_files is not None:
        async with aclosing(from_files(shop, draft_files, drafts, draft=True)) as steps:
            async for progress in steps:
                yield progress
    adapters = request.mapping("adapters")
    if adapters is not None:
        async with aclosing(from_files(shop, adapters, parts, adapter=True)) as steps:
            async for progress in steps:
                yield progress
    parts += drafts
    _check_info(request.data.get("info") or {})
    layers: list[Layer] = []
    for part in parts:
        is_draft = part.layer.kind == "draft"
        quantize = request.text(*(("draft_quantize",) if is_draft else ("quantize", "quantization")))
        async with aclosing(finish(shop, part, quantize, layers)) as steps:
            async for progress in steps:
                yield progress
    layers = await _settings(shop, request, layers)
    config = await shop.new_layer(_config(request, parts, base), CONFIG)
    for layer in layers:
        if layer.status:
            yield Progress(layer.status)
    yield Progress("writing manifest")
    shop.models.write(name, config, layers)
    if old is not None and not shop.no_prune:
        shop.models.remove_layers(old)
    yield Progress("success")


def _check_info(info: dict[str, Any]) -> None:
    for key in ("model_family", "base_name", "quantization_level", "parameter_size"):
        if not isinstance(info.get(key, ""), str):
            raise APIError(f'info field "{key}" must be a string', 400)
    for key in ("context_length", "embedding_length"):
        value = info.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise APIError(f'info field "{key}" must be a number', 400)
        if value < 0 or value != int(value):
            raise APIError(f'info field "{key}" must be a non-negative integer', 400)


async def _settings(shop: Workshop, request: CreateRequest, layers: list[Layer]) -> list[Layer]:
    """Template, system, license, parameters, messages, in manifest order."""
    if template := request.text("template"):
        layers = _without(shop, layers, "template")
        _check_template(template)
        layers.append(await shop.new_layer(template.encode(), "template"))
    if system := request.text("system"):
        layers = _without(shop, layers, "system")
        layers.append(await shop.new_layer(system.encode(), "system"))
    licenses = request.data.get("license") or []
    for text in [licenses] if isinstance(licenses, str) else licenses:
        layers.append(await shop.new_layer(str(text).encode(), "license"))
    parameters = dict(request.data.get("parameters") or {})
    for layer in layers:
        if layer.kind == "params":
            parameters = {**json.loads(shop.blobs.read(layer.digest)), **parameters}
    if parameters:
        layers = _without(shop, layers, "params")
        layers.append(await shop.new_layer(dumps(parameters, sort=True) + b"\n", "params"))
    if messages := request.data.get("messages"):
        layers = _without(shop, layers, "messages")
        layers.append(await shop.new_layer(dumps(messages) + b"\n", "messages"))
    return layers


def _without(shop: Workshop, layers: Sequence[Layer], kind: str) -> list[Layer]:
    """`removeLayer`: the blob goes at once unless a manifest names it (section 3.5)."""
    used = shop.models.used()
    for layer in layers:
        if layer.kind == kind and layer.digest not in used:
            shop.blobs.remove(layer.digest)
    return [layer for layer in layers if layer.kind != kind]


def _check_template(text: str) -> None:
    """A small part of Go's template parser: braces and blocks must match."""
    if text.count("{{") != text.count("}}"):
        raise APIError("template error: template: :1: unclosed action", 400)
    depth = 0
    for action in text.split("{{")[1:]:
        words = action.partition("}}")[0].strip("- \n\t").split()
        if words[:1] in (["if"], ["range"], ["with"], ["block"], ["define"]):
            depth += 1
        elif words[:1] == ["end"]:
            depth -= 1
        if depth < 0:
            raise APIError("template error: template: :1: unexpected {{end}}", 400)
    if depth:
        raise APIError("template error: template: :1: unexpected EOF", 400)


def _config(request: CreateRequest, parts: list[Part], base: dict[str, Any]) -> bytes:
    models = [part.gguf for part in parts if part.layer.kind == "model" and part.gguf]
    info = request.data.get("info") or {}
    first = models[0] if models else None
    family = info.get("model_family") or (first.architecture if first else "")
    config: dict[str, Any] = {
        "model_format": "gguf" if first else "",
        "model_family": family,
        "model_families": [model.architecture for model in models] or None,
        "model_type": info.get("parameter_size") or human_number(first.parameters if first else 0),
        "file_type": info.get("quantization_level") or (first.file_type if first else ""),
    }
    for key in ("renderer", "parser", "requires"):
        if text := request.text(key) or base.get(key):
            config[key] = text
    for part in parts:
        if part.layer.kind == "draft" and part.gguf:
            config["draft"] = {"model_format": "gguf", "architecture": part.gguf.architecture}
    if info.get("capabilities"):
        config["capabilities"] = info["capabilities"]
    return dumps({**config, "architecture": "amd64", "os": "linux"}) + b"\n"
