"""Bounded streaming readers of model files: bytes in, facts or a named fault out."""

from ingest_service.formats.recognise import MAGIC_BYTES, recognise

__all__ = ["MAGIC_BYTES", "recognise"]
