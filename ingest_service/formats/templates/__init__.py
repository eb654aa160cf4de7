"""Chat templates: rules C1 and C6. They are parsed and judged here, and never rendered."""

from ingest_service.formats.templates.check import Refusal, TemplateVerdict, check_template, warnings_of

__all__ = ["Refusal", "TemplateVerdict", "check_template", "warnings_of"]
