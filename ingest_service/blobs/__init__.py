"""Stored bytes looked at: their format, by the rules of today, and whether they still have their digest."""

from ingest_service.blobs.inspector import Inspector
from ingest_service.blobs.reading import digest_of
from ingest_service.blobs.rehash import Outcome, Rehash, Rehasher
from ingest_service.blobs.taking_back import TakingBack
from ingest_service.blobs.vetting import Vetting

__all__ = ["Inspector", "Outcome", "Rehash", "Rehasher", "TakingBack", "Vetting", "digest_of"]
