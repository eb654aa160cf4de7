"""What `push` is asked for: the command line and the Modelfile together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_ingest._files import is_shard
from model_ingest._modelfile import Modelfile, read_modelfile
from model_ingest.v1.resources_pb2 import CreateOptions


@dataclass(slots=True)
class PushedThings:
    """Files, roles and options of a push, and what the user is told about the Modelfile."""

    paths: list[Path]
    roles: list[tuple[str, Path]]
    options: CreateOptions = field(default_factory=CreateOptions)
    warnings: Sequence[str] = ()


def asked_for(options: argparse.Namespace) -> PushedThings:
    """Reads the Modelfile, if there is one. The command line goes before it. Raises LocalFileError."""
    things = PushedThings(list(options.path), list(options.role))
    if options.modelfile is not None:
        modelfile = read_modelfile(options.modelfile, replaced_roles=_replaced_roles(things))
        _add(things, modelfile)
        things.warnings = [f"{options.modelfile}, {text}" for text in modelfile.warnings]
    if options.quantize:
        things.options.quantize = options.quantize
    if options.draft_quantize:
        things.options.draft_quantize = options.draft_quantize
    return things


def _replaced_roles(things: PushedThings) -> set[str]:
    """What the command line names itself: a PATH and a shard stand in for FROM."""
    roles = {role for role, _ in things.roles}
    return roles | {"model"} if things.paths or "shard" in roles else roles


def _add(things: PushedThings, modelfile: Modelfile) -> None:
    things.options.CopyFrom(modelfile.options)
    for path in modelfile.models:
        if path == modelfile.models[0] or is_shard(path) or _is_of_safetensors(path):
            things.paths.append(path)
        else:
            things.roles.append(("projector", path))
    things.roles += [("adapter", path) for path in modelfile.adapters]
    things.roles += [("draft", path) for path in modelfile.drafts]


def _is_of_safetensors(path: Path) -> bool:
    names = {"tokenizer.model", "merges.txt", "vocab.txt"}
    return path.suffix.lower() in {".safetensors", ".json", ".jinja"} or path.name in names
