"""`serve --workers N`: several processes of the service that share one port.

A worker is a process like any other replica on the same data directory and database; nothing in the rooms
below knows of it. The parent imports no gRPC and opens no database: it only starts, watches and ends them.
"""

from ingest_service.workers.child import WorkerSide, let_stop_signals_in
from ingest_service.workers.port import ReservedPort, beside, reserve
from ingest_service.workers.supervisor import Supervisor

__all__ = ["ReservedPort", "Supervisor", "WorkerSide", "beside", "let_stop_signals_in", "reserve"]
