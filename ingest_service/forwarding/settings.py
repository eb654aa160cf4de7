"""How the worker works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForwardingSettings:
    """Times and numbers of the forwarding room."""

    #: From the first attempt on, failures that time may heal are tried again for this long.
    retry_seconds: float = 3600.0
    lease_seconds: float = 15.0
    #: One create may take this long, or as long as a model of its size needs at 2 MB/s.
    create_seconds: float = 7200.0
    #: After a cancel, a create that runs may go on for so long without a new status...
    cancel_silence_seconds: float = 60.0
    #: ...and for so long in all; then it is let go.
    cancel_total_seconds: float = 600.0
    #: Deployments driven at once, one per target.
    max_concurrent: int = 64
    poll_seconds: float = 2.0
    first_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0
    #: How often a target that did not answer is asked for its version, which costs little.
    probe_seconds: float = 1.0
    #: How often this process says which targets it works for, and looks for those that nobody does.
    announce_seconds: float = 10.0
