"""Bounded streaming readers of model files: bytes in, facts or a named fault out."""

from ingest_service.formats.recognise import (
    GGUF,
    JSON,
    MAGIC_BYTES,
    SAFETENSORS,
    TOKENIZER,
    format_for,
    recognise,
)

__all__ = ["GGUF", "JSON", "MAGIC_BYTES", "SAFETENSORS", "TOKENIZER", "format_for", "recognise"]
