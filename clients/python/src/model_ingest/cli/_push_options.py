"""What `push` is asked for: the command line and the Modelfile together."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from model_ingest._modelfile import Modelfile, read_modelfile
from model_ingest.v1.resources_pb2 import CreateOptions


@dataclass(slots=True)
class PushedThings:
    """Files, roles and options of a push."""

    paths: list[Path]
    roles: list[tuple[str, Path]]
    options: CreateOptions = field(default_factory=CreateOptions)


def asked_for(options: argparse.Namespace) -> PushedThings:
    """Reads the Modelfile, if there is one. The command line goes before it. Raises LocalFileError."""
    things = PushedThings(list(options.path), list(options.role))
    if options.modelfile is not None:
        _add(things, read_modelfile(options.modelfile))
    if options.quantize:
        things.options.quantize = options.quantize
    if options.draft_quantize:
        things.options.draft_quantize = options.draft_quantize
    return things


def _add(things: PushedThings, modelfile: Modelfile) -> None:
    things.options.CopyFrom(modelfile.options)
    has_model = things.paths or any(role in {"model", "shard"} for role, _ in things.roles)
    if has_model:
        # A PATH stands in for FROM, which a Modelfile cannot do without.
        things.options.ClearField("from")
    else:
        things.paths += modelfile.models[:1]
        things.roles += [("projector", path) for path in modelfile.models[1:]]
    things.roles += [("adapter", path) for path in modelfile.adapters]
