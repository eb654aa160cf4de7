"""What each kind of event tells, as plain JSON data. `rpc/events.py` turns it into protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest_service.vocabulary.records import (
    TENSOR_NAMES,
    Deployment,
    File,
    Ingest,
    NewEvent,
    failure_to_json,
)
from ingest_service.vocabulary.states import DEPLOYMENT_FAILED, DeploymentState

INGEST_STATE = "ingest_state"
FILE_STATE = "file_state"
DEPLOYMENT_STATE = "deployment_state"
DEPLOYMENT_STATUS = "deployment_status"
FILE_FACTS = "file_facts"
NOTICE = "notice"
_NOT_TOLD = frozenset({"chat_template", "chat_template_variants", TENSOR_NAMES})

_TELL_FAILURE = DEPLOYMENT_FAILED | {DeploymentState.PENDING}


def ingest_state(ingest: Ingest, *, passing: bool = False) -> NewEvent:
    """The ingest moved; `passing`: through this state, to the next one in the same transaction."""
    done = ingest.done and not passing
    body = {"state": str(ingest.state), "done": done, "failure": failure_to_json(ingest.failure)}
    return NewEvent(INGEST_STATE, body)


def file_state(file: File) -> NewEvent:
    """A file moved."""
    return NewEvent(
        FILE_STATE,
        {
            "file_name": file.file_name,
            "state": str(file.state),
            "committed_size": file.committed_size,
            "sha256": file.sha256 or "",
            "deduplicated": file.deduplicated,
            "failure": failure_to_json(file.failure and file.failure.alone()),
        },
    )


def deployment_state(deployment: Deployment) -> NewEvent:
    """A deployment moved, or is to be tried again."""
    due = deployment.next_attempt_at
    return NewEvent(
        DEPLOYMENT_STATE,
        {
            "target": deployment.target,
            "state": str(deployment.state),
            "attempts": deployment.attempts,
            # A step that goes well has none, even if the row still tells why the try before failed.
            "failure": failure_to_json(deployment.failure) if deployment.state in _TELL_FAILURE else None,
            "next_attempt_at": None if due is None else due.isoformat(),
        },
    )


def deployment_status(target: str, status: str) -> NewEvent:
    """A target said something new."""
    return NewEvent(DEPLOYMENT_STATUS, {"target": target, "status": status})


def file_facts(file: File, facts: Mapping[str, Any]) -> NewEvent:
    """What a file's header says."""
    return NewEvent(FILE_FACTS, {"file_name": file.file_name, "facts": without_templates(facts)})


def without_templates(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of chat templates their length only, where many facts are told at once."""
    short = {key: value for key, value in facts.items() if key not in _NOT_TOLD}
    if "chat_template" in facts:
        short["chat_template_bytes"] = len(facts["chat_template"].encode())
    return short


def notice(message: str) -> NewEvent:
    """Worth knowing, but no failure."""
    return NewEvent(NOTICE, {"message": message})
