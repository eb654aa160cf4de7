"""The body of a create: built here, of known parts only (security.md R10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest_service.formats import GGUF, format_for
from ingest_service.vocabulary.records import File, Ingest
from ingest_service.vocabulary.states import FileRole

#: Names at Ollama, ours and not the client's: Ollama goes by the suffix. It sorts them, and takes the first
#: line about a layer from the first: the model comes before its projector.
_NAMES = {
    FileRole.MODEL: "model.gguf",
    FileRole.SHARD: "model.gguf",
    FileRole.PROJECTOR: "projector.gguf",
    FileRole.ADAPTER: "adapter.gguf",
    FileRole.DRAFT: "draft.gguf",
}
#: Files that have a field of their own; all others are `files`.
_BESIDE = {FileRole.ADAPTER: "adapters", FileRole.DRAFT: "draft_files"}
_SHARD_SUFFIX_CHARACTERS = len("-00001-of-00003.gguf")
#: Our options that are passed on as they are, by Ollama's names.
_AS_THEY_ARE = {
    "template": "template",
    "system": "system",
    "licenses": "license",
    "quantize": "quantize",
    "renderer": "renderer",
    "parser": "parser",
    "draft_quantize": "draft_quantize",
}


def create_request(ingest: Ingest) -> Mapping[str, Any]:
    """What is sent to /api/create."""
    body: dict[str, Any] = {"model": ingest.model}
    if ingest.options.get("from"):
        # Never both: Ollama would ignore the files.
        body["from"] = ingest.options["from"]
    else:
        files = (file for file in ingest.files if file.role not in _BESIDE)
        is_whole = not is_split(ingest)
        body["files"] = {_name(file, is_whole=is_whole): digest_of(file) for file in files}
    for role, field in _BESIDE.items():
        beside = {_name(file): digest_of(file) for file in ingest.files if file.role is role}
        if beside:
            body[field] = beside
    return {**body, **_options(ingest.options), "stream": True}


def digest_of(file: File) -> str:
    """The digest of a stored file."""
    assert file.sha256 is not None, "a deployment is claimed only once its files are stored"
    return file.sha256


def layer_digest_expected(ingest: Ingest) -> str:
    """The digest that the model's layer has where Ollama takes the file as it is; "" if it makes another.

    It does so of shards, of safetensors, when it quantizes, and `from` brings a layer that we never saw.
    """
    models = [file for file in ingest.files if file.role in {FileRole.MODEL, FileRole.SHARD}]
    if len(models) != 1 or ingest.options.get("quantize"):
        return ""
    return digest_of(models[0])


def is_split(ingest: Ingest) -> bool:
    """The model comes in several shards; the only one of one is a whole model."""
    return sum(file.role is FileRole.SHARD for file in ingest.files) > 1


def _name(file: File, *, is_whole: bool = True) -> str:
    """The parts of a safetensors set are told apart by their own names, shards by their numbers."""
    if file.role is FileRole.SHARD and not is_whole:
        # Ours up to `-00001-of-00003.gguf`: whatever they were called, the model comes before its projector.
        # Ollama knows the suffix in lower case only.
        return "model" + file.file_name[-_SHARD_SUFFIX_CHARACTERS:].lower()
    if format_for(file.file_name) != GGUF:
        return file.file_name
    return _NAMES[file.role]


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    body = {theirs: options[ours] for ours, theirs in _AS_THEY_ARE.items() if options.get(ours)}
    if options.get("requires"):
        # Ollama's own client sends it without the `v`.
        body["requires"] = options["requires"].removeprefix("v")
    if options.get("parameters"):
        body["parameters"] = {name: _plain(value) for name, value in options["parameters"].items()}
    if options.get("messages"):
        body["messages"] = [
            {"role": message["role"], "content": message.get("content", "")}
            for message in options["messages"]
        ]
    return body


def _plain(value: Any) -> Any:
    """A protobuf Struct knows no whole numbers; Ollama's `num_ctx` is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
