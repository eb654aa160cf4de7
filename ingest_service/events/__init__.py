"""Events: appended with the change they tell (database room), replayed and followed here."""

from ingest_service.events.hub import Hub
from ingest_service.events.watch import Heartbeat, Watches, WatchItem

__all__ = ["Heartbeat", "Hub", "WatchItem", "Watches"]
