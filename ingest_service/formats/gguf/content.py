"""Rules C1 and C6: chat templates, which others will render."""

from __future__ import annotations

from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.values import TEMPLATE, Metadata
from ingest_service.formats.templates import warnings_of


def check_templates(metadata: Metadata, limits: GgufLimits) -> None:
    """C1 and C6: no template is rendered here, but by others it is."""
    for variant, text in metadata.templates.items():
        key = f"{TEMPLATE}.{variant}" if variant else TEMPLATE
        metadata.warnings += warnings_of(
            text, key, metadata.offset(key), refuse_unsafe=limits.refuse_unsafe_templates
        )
