"""Bounded streaming readers of model files: bytes in, facts or a named fault out."""

from ingest_service.formats.inspect import RULES_VERSION, FormatLimits, FormatReader
from ingest_service.formats.recognise import GGUF, JSON, SAFETENSORS, TOKENIZER, format_for

__all__ = [
    "GGUF",
    "JSON",
    "RULES_VERSION",
    "SAFETENSORS",
    "TOKENIZER",
    "FormatLimits",
    "FormatReader",
    "format_for",
]
