"""How an ingest, its files and its deployments move: pure rules, no I/O.

Given an ingest and what happened, `Change` holds the ingest after it and the events of it; the database
room writes both in one transaction. Both rooms that move things, `ingests` and `forwarding`, move them
through here, so that the ingest's state follows from its parts by one rule (`derive_state`).
"""

from ingest_service.lifecycle.change import Change
from ingest_service.lifecycle.derive import derive_state

__all__ = ["Change", "derive_state"]
