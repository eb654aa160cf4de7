"""What a JSON file of a safetensors set may cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """Ollama reads each of them whole into memory, and some of their numbers size its allocations."""

    #: The few that tell what the model is, which are decoded: they have some kilobytes.
    max_config_bytes: int = 1 << 20
    #: `tokenizer.json` and `vocab.json`; the largest known ones have 35 MB.
    max_vocabulary_bytes: int = 64 << 20
    #: All others, such as the index of a set; the largest known ones have 9 MB.
    max_other_bytes: int = 16 << 20
    max_depth: int = 32
    max_string_bytes: int = 1 << 20
    #: Of the outermost object.
    max_members: int = 4096
    max_blocks: int = 512
    max_experts: int = 1024
    max_tokens: int = 1 << 20
    #: Ollama compares each with its own ones, in their product of lengths: 250 KB cost 0.24.0 half a minute.
    max_template_bytes: int = 64 << 10
    refuse_unsafe_templates: bool = True
    cpu_budget_seconds: float = 30.0
