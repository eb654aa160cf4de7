"""What a sound header tells a person about the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ingest_service.formats.gguf.loading_warnings import loading_warnings
from ingest_service.formats.gguf.tensors import Tensors
from ingest_service.formats.gguf.types import FILE_TYPES, TENSOR_TYPES, UNKNOWN_TO_OLLAMA
from ingest_service.formats.gguf.values import TOKENS, Metadata
from ingest_service.formats.shards import names_fact
from ingest_service.vocabulary.text import clean

_MAX_WARNINGS = 20
#: As many as the rule A1 allows, which may be lifted.
_MAX_ARCHITECTURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class QuantizationShare:
    """The tensors of one type."""

    type: str
    tensors: int
    parameters: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Split:
    """Which shard of how many, and how many tensors all of them have."""

    number: int
    count: int
    tensors: int


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """None is what the header does not say. Texts are safe to show, but templates are as they are."""

    architecture: str | None
    type: str
    name: str | None
    basename: str | None
    parameter_count: int
    tensor_count: int
    #: By name (`Q4_K_M`), as the header says; else the type that most bytes have.
    quantization: str | None
    #: Most bytes first.
    quantization_mix: tuple[QuantizationShare, ...]
    context_length: int | None
    embedding_length: int | None
    block_count: int | None
    tokenizer: str | None
    tokenizer_pre: str | None
    vocabulary_size: int | None
    #: Never rendered; capped by the rule C2.
    chat_template: str | None
    #: Variant -> template.
    chat_template_variants: dict[str, str]
    license: str | None
    size_label: str | None
    split: Split | None
    #: Digests of a shard's tensor names, for `formats.shards` alone.
    tensor_names: str | None
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """For storing and sending: plain values, without what is not known."""
        return {key: value for key, value in asdict(self).items() if value not in (None, (), {})}


def facts_of(metadata: Metadata, tensors: Tensors) -> GgufFacts:
    """The facts of a header that broke no rule."""
    prefix = metadata.architecture + "."
    mix = _mix(tensors)
    tokens = metadata.array(TOKENS)
    split = _split(metadata)
    return GgufFacts(
        architecture=clean(metadata.architecture, _MAX_ARCHITECTURE_BYTES) or None,
        type=(None if metadata.is_type_ignored else _shown(metadata, "general.type")) or "model",
        name=_shown(metadata, "general.name"),
        basename=_shown(metadata, "general.basename"),
        parameter_count=tensors.parameters,
        tensor_count=tensors.count,
        quantization=_quantization(metadata, mix),
        quantization_mix=mix,
        context_length=metadata.integer(prefix + "context_length"),
        embedding_length=metadata.integer(prefix + "embedding_length"),
        block_count=metadata.integer(prefix + "block_count"),
        tokenizer=_shown(metadata, "tokenizer.ggml.model"),
        tokenizer_pre=_shown(metadata, "tokenizer.ggml.pre"),
        vocabulary_size=tokens.count if tokens else metadata.integer(prefix + "vocab_size"),
        chat_template=metadata.templates.get(""),
        chat_template_variants={clean(key, 100): text for key, text in metadata.templates.items() if key},
        license=_shown(metadata, "general.license"),
        size_label=_shown(metadata, "general.size_label"),
        split=split,
        tensor_names=names_fact(tensors.names) if split else None,
        warnings=tuple(clean(text) for text in _warnings(metadata, tensors)),
    )


def _shown(metadata: Metadata, key: str) -> str | None:
    return clean(metadata.text(key) or "") or None


def _mix(tensors: Tensors) -> tuple[QuantizationShare, ...]:
    shares = (
        QuantizationShare(_type_name(number), share.tensors, share.parameters, share.size_bytes)
        for number, share in tensors.by_type.items()
    )
    return tuple(sorted(shares, key=lambda share: (-share.size_bytes, share.type)))


def _type_name(number: int) -> str:
    """Types that are not known are there where the rule T5 is lifted."""
    return TENSOR_TYPES[number].name if number in TENSOR_TYPES else f"type {number}"


def _quantization(metadata: Metadata, mix: tuple[QuantizationShare, ...]) -> str | None:
    said = FILE_TYPES.get(metadata.integer("general.file_type") or -1)
    if metadata.integer("general.file_type") == 0:
        said = FILE_TYPES[0]
    return said or (mix[0].type if mix else None)


def _split(metadata: Metadata) -> Split | None:
    number, count = metadata.integer("split.no"), metadata.integer("split.count")
    tensors = metadata.integer("split.tensors.count")
    if number is None or count is None or tensors is None or count <= 1:
        # A count of 0 or 1 is left in whole models, by merging or by splitting into one.
        return None
    if not 0 <= number < count or tensors < 0:
        # Taken only where the rule A4 is a warning: no set of shards has such a place.
        return None
    return Split(number, count, tensors)


def _warnings(metadata: Metadata, tensors: Tensors) -> list[str]:
    found = metadata.faults.warnings + metadata.warnings[:_MAX_WARNINGS]
    names = [TENSOR_TYPES[number].name for number in sorted(tensors.by_type) if number in UNKNOWN_TO_OLLAMA]
    if names:
        found.append(f"Ollama up to 0.33 does not know the tensor types {', '.join(names)}")
    key = "general.file_type"
    if key in metadata.values and metadata.integer(key) not in FILE_TYPES:
        found.append(f"{key} {metadata.values[key].data} is not known")
    tokens = metadata.array(TOKENS)
    if metadata.is_model:
        found += loading_warnings(metadata, tensors)
    if tokens and metadata.is_model:
        found += _out_of_vocabulary(metadata, tokens.count)
    return found


def _out_of_vocabulary(metadata: Metadata, count: int) -> list[str]:
    """Special tokens beyond the vocabulary, which llama.cpp leaves out with a word in its log."""
    return [
        f"{key} {value.data} is beyond the {count} tokens"
        for key, value in metadata.values.items()
        if key.startswith("tokenizer.ggml.")
        and key.endswith("_token_id")
        and isinstance(value.data, int)
        and not 0 <= value.data < count
    ][:_MAX_WARNINGS]
