"""Stored bytes looked at: their format, by the rules of today."""

from ingest_service.blobs.inspector import Inspector
from ingest_service.blobs.vetting import Vetting

__all__ = ["Inspector", "Vetting"]
