"""Stored bytes looked at: their format, by the rules of today; whether they are still those of their digest."""

from ingest_service.blobs.inspector import Inspector
from ingest_service.blobs.rehash import Outcome, Rehash, Rehasher
from ingest_service.blobs.vetting import Vetting

__all__ = ["Inspector", "Outcome", "Rehash", "Rehasher", "Vetting"]
