"""config.json: the numbers and names that Ollama's converter divides by, allocates for, or dies of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ingest_service.formats.faults import Faults
from ingest_service.formats.json_files.limits import JsonLimits
from ingest_service.vocabulary.text import clean

Dict = Mapping[str, Any]
_ROPE = "rope_scaling"
_QWEN = frozenset({"yarn", "mrope", "default"})
#: Ollama's converters of these panic at any other `rope_scaling.type` (convert_phi3, _qwen2, _qwen3).
_ROPE_TYPES = {
    "Phi3ForCausalLM": frozenset({"su", "longrope", "yarn"}),
    "Qwen2ForCausalLM": _QWEN,
    "Qwen2_5_VLForConditionalGeneration": _QWEN,
    "Qwen3VLForConditionalGeneration": _QWEN,
    "Qwen3VLMoeForConditionalGeneration": _QWEN,
}
#: Where these converters look for the number of heads that they divide by, said or not.
_DIVISORS = {
    "LlamaForCausalLM": ("", "num_attention_heads"),
    "MixtralForCausalLM": ("", "num_attention_heads"),
    "Ministral3ForCausalLM": ("", "num_attention_heads"),
    "Phi3ForCausalLM": ("", "num_attention_heads"),
    "Lfm2ForCausalLM": ("", "num_attention_heads"),
    "Lfm2MoeForCausalLM": ("", "num_attention_heads"),
    "Lfm2VlForConditionalGeneration": ("text_config", "num_attention_heads"),
    "Mistral3ForConditionalGeneration": ("text_config", "num_attention_heads"),
    "GlmOcrForConditionalGeneration": ("text_config", "num_attention_heads"),
    "MllamaForConditionalGeneration": ("vision_config", "attention_heads"),
}
_INSTEAD = {"num_attention_heads": "n_head"}
#: Zero is a number that a divisor or a block count must not be.
_NEVER_ZERO = frozenset(
    {"num_hidden_layers", "n_layers", "n_layer", "num_attention_heads", "attention_heads", "n_head"}
    | {"linear_num_key_heads"}
)
_SPARSITY = "activation_sparsity_pattern"
_MAX_LENGTH = 2**31 - 1
#: Where models that see or hear say what their text part is.
_TEXT_PARTS = ("text_config", "language_config", "llm_config")
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def check_config(config: Dict, limits: JsonLimits, faults: Faults) -> dict[str, Any]:
    """The rules J of one config.json; what it says of the model, under the names that GGUF facts have."""
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and architectures and all(_is_name(a) for a in architectures)
    if not named:
        message = "It says its `architectures`, a list of at least one name: Ollama needs them."
        faults.add("J5", None, "architectures", message)
    architecture = str(architectures[0]) if isinstance(architectures, list) and named else ""
    most = _most(limits)
    for path, part in _parts(config, ""):
        _check_part(part, path, most, _ROPE_TYPES.get(architecture), faults)
    _check_divisor(config, architecture, faults)
    return _facts(config, architecture)


def _most(limits: JsonLimits) -> dict[str, int]:
    """Name -> the greatest number it may have: what the converter allocates or loops for."""
    blocks = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "depth", "num_nextn_predict_layers")
    experts = ("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok")
    heads = ("num_attention_heads", "attention_heads", "n_head", "num_key_value_heads", "n_head_kv")
    linear = ("linear_num_key_heads", "linear_num_value_heads")
    widths = ("hidden_size", "n_embd", "head_dim", "global_head_dim")
    lengths = ("max_position_embeddings", "n_ctx", "intermediate_size", "n_inner")
    return (
        dict.fromkeys(blocks, limits.max_blocks)
        | dict.fromkeys(experts, limits.max_experts)
        | dict.fromkeys((*heads, *linear), 4096)
        | dict.fromkeys(widths, 1 << 20)
        | dict.fromkeys(lengths, _MAX_LENGTH)
        | {"vocab_size": limits.max_tokens}
    )


def _parts(part: Dict, path: str) -> Iterator[tuple[str, Dict]]:
    """The object itself and all that it has within."""
    yield path, part
    for name, value in part.items():
        if isinstance(value, dict):
            yield from _parts(value, f"{path}{name}.")


def _check_part(
    part: Dict, path: str, most: Mapping[str, int], ropes: frozenset[str] | None, faults: Faults
) -> None:
    for name, value in part.items():
        folded = name.casefold()
        if folded != name and (folded in most or folded in (_ROPE, "architectures", "text_config")):
            faults.add("J4", None, path + name, f"Ollama takes it for {folded!r}, others do not.")
        if name in most:
            for number in value if isinstance(value, list) else [value]:
                _check_number(name, path + name, number, most[name], faults)
        if folded == _SPARSITY and isinstance(value, list):
            for number in value:
                if isinstance(number, int | float) and not 0 <= number <= 1:
                    message = f"{number} is no share from 0 to 1: Ollama's server would die of it."
                    faults.add("J6", None, path + name, message)
        if name == _ROPE and isinstance(value, dict) and ropes is not None:
            _check_rope(value, f"{path}{name}.", ropes, faults)


def _check_number(name: str, field: str, number: object, most: int, faults: Faults) -> None:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return
    if number == 0 and name in _NEVER_ZERO:
        faults.add("J7", None, field, f"{field} is 0: Ollama or llama.cpp would divide by it, or abort.")
    elif not isinstance(number, int) or not 0 <= number <= most:
        faults.add("J6", None, field, f"{field} is a whole number up to {most}, not {number}.")


def _check_rope(rope: Dict, path: str, known: frozenset[str], faults: Faults) -> None:
    for name, kind in rope.items():
        if name.casefold() == "type" and isinstance(kind, str) and kind and kind not in known:
            message = f"{kind!r} is no scaling that Ollama knows of this architecture: its server would die."
            faults.add("J8", None, path + name, message)


def _check_divisor(config: Dict, architecture: str, faults: Faults) -> None:
    where, name = _DIVISORS.get(architecture, ("", ""))
    if not name:
        return
    part = config.get(where) if where else config
    part = part if isinstance(part, dict) else {}
    instead = _INSTEAD.get(name, name) if architecture == "Phi3ForCausalLM" else name
    if not (part.get(name) or part.get(instead)):
        field = f"{where}.{name}" if where else name
        faults.add(
            "J7", None, field, f"The model does not say its {field}: Ollama's server would divide by 0."
        )


def _facts(config: Dict, architecture: str) -> dict[str, Any]:
    places = [config, *(config[name] for name in _TEXT_PARTS if isinstance(config.get(name), dict))]

    def number(*names: str) -> int | None:
        for part in places:
            for name in names:
                if type(part.get(name)) is int:
                    return int(part[name])
        return None

    kind = config.get("model_type")
    dtype = next((v for v in (config.get("torch_dtype"), config.get("dtype")) if isinstance(v, str)), "")
    facts = {
        "architecture": clean(str(kind) if _is_name(kind) else architecture),
        "quantization": _DTYPES.get(dtype),
        "context_length": number("max_position_embeddings", "n_ctx"),
        "embedding_length": number("hidden_size", "n_embd"),
        "block_count": number("num_hidden_layers", "n_layers", "n_layer"),
        "vocabulary_size": number("vocab_size"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 256
