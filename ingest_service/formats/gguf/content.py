"""Rules C1 and C6: chat templates, which others will render."""

from __future__ import annotations

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.values import TEMPLATE, Metadata
from ingest_service.formats.templates import check_template


def check_templates(metadata: Metadata, limits: GgufLimits) -> None:
    """C1 and C6: no template is rendered here, but by others it is."""
    for variant, text in metadata.templates.items():
        key = f"{TEMPLATE}.{variant}" if variant else TEMPLATE
        verdict = check_template(text)
        for refusal in verdict.refusals:
            if limits.refuse_unsafe_templates:
                refuse(refusal.rule, metadata.offset(key), key, refusal.message)
            metadata.warnings.append(f"{key}: {refusal.message}")
        metadata.warnings.extend(f"{key}: {warning}" for warning in verdict.warnings)
