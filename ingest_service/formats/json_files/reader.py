"""The readers of a safetensors set's JSON files: rules J."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ingest_service.formats.faults import Faults, refuse
from ingest_service.formats.incremental import IncrementalReader
from ingest_service.formats.json_files.config import check_config
from ingest_service.formats.json_files.limits import JsonLimits
from ingest_service.formats.json_files.scan import Scan, ScanRules
from ingest_service.formats.source import Source, Steps
from ingest_service.formats.templates import warnings_of

_CONFIG = "config.json"
_ADDED = "added_tokens.json"
_SPECIAL = "special_tokens_map.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_TEMPLATE = "chat_template"
_MAX_WARNINGS = 10
_MORE_TOKENS = "additional_special_tokens"
#: Decoded as a whole; Ollama's converter decodes them too.
_DECODED = frozenset({_CONFIG, _ADDED, _SPECIAL, "generation_config.json", "adapter_config.json"})
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json"})
#: They may be lists; Ollama decodes every other that it reads into an object.
_OBJECTS = _DECODED | {"tokenizer.json", _TOKENIZER_CONFIG}


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What one file beside the weights says."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class JsonReader(IncrementalReader[SetFacts]):
    """Reads one whole JSON file of `size_bytes`, of which the name is known."""

    def __init__(
        self,
        limits: JsonLimits,
        size_bytes: int,
        file_name: str,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        # Case is no difference to a name: a set has none twice but for that.
        source = Source(size_bytes, size_bytes)
        steps = _read(source, file_name.lower(), limits)
        super().__init__(source, steps, limits.cpu_budget_seconds, cpu_clock)


def _read(source: Source, name: str, limits: JsonLimits) -> Steps[SetFacts]:
    decoded = name in _DECODED
    most = limits.max_other_bytes
    if decoded:
        most = limits.max_config_bytes
    elif name in _VOCABULARIES:
        most = limits.max_vocabulary_bytes
    if not 2 <= source.size_bytes <= most:
        message = f"A file of that name has 2 to {most} bytes; this one has {source.size_bytes}."
        refuse("J1", None, "file size", message)
    rules = ScanRules(
        limits.max_depth,
        limits.max_string_bytes,
        # Of a decoded one every name is looked at; a vocabulary's outermost names are its tokens.
        max_members=None if decoded or name == "vocab.json" else limits.max_members,
        wanted=frozenset({_TEMPLATE}),
        keep_all=decoded or source.size_bytes <= limits.max_config_bytes,
        allow_not_finite=name == _CONFIG,
    )
    scan = Scan(source, rules)
    yield from scan.run()
    if name in _OBJECTS and not scan.is_object:
        refuse("J5", None, "JSON", "A file of that name is an object.")
    if decoded:
        return _decoded(bytes(scan.text), name, limits, source.faults)
    warnings: tuple[str, ...] = ()
    if _TEMPLATE in scan.kept:
        warnings = _check_template(*scan.kept[_TEMPLATE], limits)
    return SetFacts(_special(json.loads(bytes(scan.text))) if scan.text else {}, warnings)


def _decoded(text: bytes, name: str, limits: JsonLimits, faults: Faults) -> SetFacts:
    content = json.loads(text, object_pairs_hook=partial(_unique, faults))
    if name == _CONFIG:
        return SetFacts(check_config(content, limits, faults) | _special(content))
    if name == _ADDED:
        for token, number in content.items():
            # A number below 0 ends Ollama's server: it indexes a list with it.
            if type(number) is int and not 0 <= number <= limits.max_tokens:
                message = f"A token's number is 0 to {limits.max_tokens}, not {number}."
                faults.add("J6", None, token, message)
    return SetFacts(_special(content))


def _special(content: object) -> dict[str, Any]:
    """Told of every small file, whatever its name: the same bytes may get another. For the rule X4."""
    if not isinstance(content, dict):
        return {}
    for name, tokens in content.items():
        # In any spelling: Ollama's decoder does not tell cases apart.
        is_list = name.casefold() == _MORE_TOKENS and isinstance(tokens, list)
        if is_list and not all(isinstance(token, dict) for token in tokens):
            return {_MORE_TOKENS: "texts"}
    return {}


def _unique(faults: Faults, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        for name, times in Counter(name for name, _ in pairs).items():
            if times > 1:
                faults.add("J4", None, name, "The name is there twice; programs differ in which they use.")
    return content


def _check_template(at: int, text: bytes, limits: JsonLimits) -> tuple[str, ...]:
    """C1 and C2, as for a GGUF's templates: Ollama takes this one over."""
    value = json.loads(text)
    entries = value if isinstance(value, list) else [value]
    texts = [entry.get("template") if isinstance(entry, dict) else entry for entry in entries]
    templates = [template for template in texts if isinstance(template, str)]
    if sum(len(template.encode("utf-8", "replace")) for template in templates) > limits.max_template_bytes:
        message = f"The chat templates have more than {limits.max_template_bytes} bytes together."
        refuse("C2", at, _TEMPLATE, message)
    warnings: list[str] = []
    for template in templates:
        warnings += warnings_of(template, _TEMPLATE, at, refuse_unsafe=limits.refuse_unsafe_templates)
    return tuple(warnings[:_MAX_WARNINGS])
