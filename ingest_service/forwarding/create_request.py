"""The body of a create: built here, of known parts only (security.md R10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest_service.vocabulary.records import File, Ingest

#: The one file's name at Ollama. Ours, not the client's: Ollama goes by its suffix.
_MODEL_FILE = "model.gguf"


def create_request(ingest: Ingest) -> Mapping[str, Any]:
    """What is sent to /api/create."""
    return {"model": ingest.model, "files": {_MODEL_FILE: digest_of(ingest.files[0])}, "stream": True}


def digest_of(file: File) -> str:
    """The digest of a stored file."""
    assert file.sha256 is not None, "a deployment is claimed only once its files are stored"
    return file.sha256
