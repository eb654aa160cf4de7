"""What a GGUF header may cost (security.md section 2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GgufLimits:
    """All of them can be set; the defaults are security.md's."""

    max_header_bytes: int = 64 << 20
    max_pairs: int = 4096
    max_tensors: int = 65_536
    #: Of most nothing is kept; the longest known one is the 34 MB of Gemma's `tokenizer.huggingface.json`.
    max_string_bytes: int = 48 << 20
    max_array_elements: int = 64 << 20
    max_alignment_bytes: int = 1 << 20
    max_blocks: int = 512
    max_experts: int = 1024
    #: Of vocabularies only hashes are kept, eight bytes a token; the largest known one has 262 144.
    max_tokens: int = 1 << 20
    max_token_bytes: int = 64 << 10
    #: Ollama compares each with its own ones, in their product of lengths: 250 KB cost 0.24.0 half a minute.
    max_template_bytes: int = 64 << 10
    #: Processor time of the thread that feeds, not time on the clock: a busy machine is no fault of the file.
    cpu_budget_seconds: float = 30.0
    allow_trailing_bytes: bool = False
    allow_vocabulary_only: bool = False
    refuse_unsafe_templates: bool = True
    #: Ids of `formats.policies`: what breaks them is taken with a warning.
    rules_as_warnings: tuple[str, ...] = ()
