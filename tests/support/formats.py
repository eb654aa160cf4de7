"""How the domain's parts get their readers of model files."""

from __future__ import annotations

from collections.abc import Callable

from ingest_service.blobs import Inspector, Vetting
from ingest_service.database import Database
from ingest_service.formats import RULES_VERSION, FormatLimits
from ingest_service.storage import BlobStore, FileExecutor
from ingest_service.vocabulary.records import Inspection

#: Of bytes that no reader has to see.
ACCEPTED = Inspection("gguf", RULES_VERSION, {})


def vetting(database: Database, store: BlobStore, executor: FileExecutor) -> Vetting:
    return Vetting(database, store, executor, FormatLimits())


def inspectors(executor: FileExecutor) -> Callable[[str, int], Inspector]:
    return lambda file_name, size_bytes: Inspector(file_name, size_bytes, FormatLimits(), executor)
