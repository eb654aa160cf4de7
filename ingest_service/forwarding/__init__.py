"""Gets stored models running on targets: a worker claims deployments and drives them (design.md section 5).

Knows no gRPC.
"""

from ingest_service.forwarding.board import TargetBoard, TargetStatus
from ingest_service.forwarding.cut_through import CutThrough
from ingest_service.forwarding.presence import TargetPresence, TargetVerdict
from ingest_service.forwarding.removal import TargetRemoval
from ingest_service.forwarding.settings import ForwardingSettings
from ingest_service.forwarding.target import Target, TargetError
from ingest_service.forwarding.transport import warm_up
from ingest_service.forwarding.worker import Worker

__all__ = [
    "CutThrough",
    "ForwardingSettings",
    "Target",
    "TargetBoard",
    "TargetError",
    "TargetPresence",
    "TargetRemoval",
    "TargetStatus",
    "TargetVerdict",
    "Worker",
    "warm_up",
]
