"""Resource names from what people type."""

from __future__ import annotations


def ingest_name(text: str) -> str:
    """`ingests/{id}` from itself or from a bare id."""
    return text if text.startswith("ingests/") else f"ingests/{text}"


def model_name(text: str) -> str:
    """`models/{model name}` from itself or from a bare model name."""
    return text if text.startswith("models/") else f"models/{text}"
