"""Resources as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model_ingest._clean import printable
from model_ingest.cli._facts import fact_lines
from model_ingest.cli._option_lines import option_lines
from model_ingest.cli._words import (
    amount,
    deployment_state,
    file_state,
    ingest_state,
    moment,
    next_try,
    shown_state,
    why,
)
from model_ingest.v1.resources_pb2 import CreateOptions, Deployment, Ingest, Model, Target


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as they need to be."""
    cells = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def ingest_table(ingests: Iterable[Ingest]) -> list[str]:
    """For `ls --ingests`."""
    head = ("INGEST", "MODEL", "STATE", "SIZE", "CREATED")
    return table(
        head,
        (
            (
                i.name,
                i.model,
                shown_state(i),
                amount(sum(f.size_bytes for f in i.files)),
                moment(i.create_time),
            )
            for i in ingests
        ),
    )


def model_table(models: Iterable[Model]) -> list[str]:
    """For `ls`."""
    head = ("MODEL", "SIZE", "STORED", "READY ON", "DIGEST")
    return table(
        head,
        (
            (
                m.display_name or m.name.removeprefix("models/"),
                amount(m.size_bytes),
                moment(m.store_time),
                ", ".join(_ready_on(m)) or "-",
                (m.files[0].sha256[:19] if m.files else "-")
                + (" CORRUPT" if any(file.corrupt for file in m.files) else ""),
            )
            for m in models
        ),
    )


def _ready_on(model: Model) -> list[str]:
    """Targets that have it, and those that had it."""
    ready = [d.target for d in model.deployments if d.state == Deployment.STATE_READY]
    return ready + [f"{d.target} (LOST)" for d in model.deployments if d.state == Deployment.STATE_LOST]


def target_table(targets: Iterable[Target]) -> list[str]:
    """For `targets`."""
    head = ("TARGET", "ANSWERS", "VERSION", "CHECKED", "")
    return table(
        head,
        (
            (
                t.name.removeprefix("targets/"),
                "yes" if t.reachable else "no",
                t.version or "-",
                moment(t.check_time) or "-",
                t.message,
            )
            for t in targets
        ),
    )


def ingest_text(ingest: Ingest) -> list[str]:
    """For `status`."""
    lines = [f"{printable(ingest.name)}  {printable(ingest.model)}  {shown_state(ingest)}"]
    if ingest.HasField("model_deleted_time"):
        deleted, state = moment(ingest.model_deleted_time), ingest_state(ingest.state)
        lines += [f"its model was deleted from the catalog at {deleted}; before that it was {state}"]
    lines += [f"failure: {why(ingest.failure)}"] if ingest.HasField("failure") else []
    lines += [f"created {moment(ingest.create_time)}, last event {ingest.last_sequence}"]
    for file in ingest.files:
        committed = "" if file.state == file.STATE_STORED else f"{amount(file.committed_size)} of "
        size = f"{committed}{amount(file.size_bytes)}"
        line = f"file {file.file_name}: {file_state(file.state)}, {size} {file.sha256}"
        line += ", no bytes were needed" if file.deduplicated else ""
        lines.append(printable(line))
        lines += [f"  failure: {why(file.failure)}"] if file.HasField("failure") else []
        lines += [f"  also: {printable(one.description)}" for one in file.failure.violations]
    lines += [line for deployment in ingest.deployments for line in _deployment_text(deployment)]
    return lines + _options_text(ingest.options)


def model_text(model: Model, options: CreateOptions) -> list[str]:
    """For `show`; `options` are those of the ingest that brought the model."""
    name = model.display_name or model.name.removeprefix("models/")
    lines = [printable(f"{name}: {amount(model.size_bytes)}, stored {moment(model.store_time)}")]
    lines.append(printable(f"ingest {model.ingest}"))
    for file in model.files:
        line = f"file {file.file_name}: {file.format} {amount(file.size_bytes)} {file.sha256}"
        line += ", CORRUPT: push the same file again" if file.corrupt else ""
        lines.append(printable(line))
    for deployment in model.deployments:
        lines += _deployment_text(deployment)
    lines += [printable(f"earlier {digest}") for digest in model.earlier_digests]
    facts = fact_lines(model.facts)
    lines += ["what its header says:", *facts] if facts else []
    return lines + _options_text(options)


def _options_text(options: CreateOptions) -> list[str]:
    lines = option_lines(options)
    return ["created with:", *lines] if lines else []


def _deployment_text(deployment: Deployment) -> list[str]:
    parts = [f"target {deployment.target}: {deployment_state(deployment.state)}"]
    parts += [f"tries {deployment.attempts}"] if deployment.attempts > 1 else []
    parts += [f"Ollama {deployment.target_version}"] if deployment.target_version else []
    parts += [f"layer {deployment.layer_digest}"] if deployment.layer_digest else []
    lines = [printable(", ".join(parts))]
    if deployment.HasField("failure"):
        lines.append(f"  failure: {why(deployment.failure)}")
    if deployment.HasField("next_attempt_time"):
        lines.append(f"  {next_try(deployment.next_attempt_time)}")
    return lines
