"""The readers of a safetensors set's text files: chat templates (rules C1, C2, C6), and lists of words (J1).

Ollama's converters (0.24 to 0.33) read none of them. In 0.33 its command sends `chat_template.jinja` along,
and takes the template of an MLX model from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ingest_service.formats.faults import refuse
from ingest_service.formats.incremental import IncrementalReader
from ingest_service.formats.json_files import JsonLimits, SetFacts
from ingest_service.formats.source import Source, Steps
from ingest_service.formats.templates import warnings_of

_MAX_WARNINGS = 10
#: Tried with 0.24.0 and 0.33.0-rc2: the model that they make has no template.
_NOT_READ = (
    "Ollama (0.24 to 0.33) takes no template from this file; where tokenizer_config.json has none, set the"
    " option `template`"
)


class TemplateFileReader(IncrementalReader[SetFacts]):
    """Reads one whole template of `size_bytes`; faults name the file."""

    def __init__(
        self,
        limits: JsonLimits,
        size_bytes: int,
        file_name: str,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        source = Source(size_bytes, size_bytes)
        super().__init__(
            source, _read_template(source, file_name, limits), limits.cpu_budget_seconds, cpu_clock
        )


class WordsReader(IncrementalReader[SetFacts]):
    """Looks at the size of `merges.txt` or `vocab.txt`, of which nothing else is judged."""

    def __init__(
        self, limits: JsonLimits, size_bytes: int, cpu_clock: Callable[[], float] = time.thread_time
    ) -> None:
        source = Source(size_bytes, size_bytes)
        super().__init__(source, _read_words(source, limits), limits.cpu_budget_seconds, cpu_clock)


def _read_template(source: Source, file_name: str, limits: JsonLimits) -> Steps[SetFacts]:
    if source.size_bytes > limits.max_template_bytes:
        message = f"A chat template has at most {limits.max_template_bytes} bytes, not {source.size_bytes}."
        refuse("C2", None, file_name, message)
    data = yield from source.take(source.size_bytes, file_name)
    text = data.decode("utf-8", "replace")
    warnings = [f"{file_name}: {_NOT_READ}"]
    warnings += warnings_of(text, file_name, 0, refuse_unsafe=limits.refuse_unsafe_templates)
    if "\ufffd" in text:
        warnings.append(f"{file_name}: some of it is no UTF-8")
    return SetFacts({}, tuple(warnings[:_MAX_WARNINGS]))


def _read_words(source: Source, limits: JsonLimits) -> Steps[SetFacts]:
    if source.size_bytes > limits.max_vocabulary_bytes:
        message = f"A file of that name has at most {limits.max_vocabulary_bytes} bytes, not"
        refuse("J1", None, "file size", f"{message} {source.size_bytes}.")
    # It is enough that a first byte is there.
    yield from source.take(min(1, source.size_bytes), "text")
    return SetFacts()
