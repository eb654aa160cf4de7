"""Rules C: chat templates, which others will render, and the numbers of projectors."""

from __future__ import annotations

from ingest_service.formats.faults import refuse
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.types import U32
from ingest_service.formats.gguf.values import TEMPLATE, Metadata
from ingest_service.formats.templates import check_template

_MAX_PATCHES = 1024
#: Suffix of a projector's key -> the most that llama.cpp's fixed arrays and 32-bit products bear.
_PROJECTOR = {
    "head_count": 4096,
    "block_count": 512,
    "patch_size": 4096,
    "image_size": 65_536,
    "chunk_size": 16_384,
    "embedding_length": 2**20,
}


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


def check_projector(metadata: Metadata) -> None:
    """C5: a projector's numbers are used as divisors and as sizes of fixed arrays."""
    if metadata.architecture != "clip":
        return
    for part in ("clip.vision.", "clip.audio."):
        for suffix, most in _PROJECTOR.items():
            for key in (part + suffix, part + "attention." + suffix):
                value = metadata.values.get(key)
                if value is None:
                    continue
                number = metadata.integer(key)
                if value.type != U32 or number is None or not 1 <= number <= most:
                    message = f"{key} is a u32 from 1 to {most}, not {value.type_name} {value.data}."
                    refuse("C5", value.offset, key, message)
    image, patch = metadata.integer("clip.vision.image_size"), metadata.integer("clip.vision.patch_size")
    if image and patch and not 1 <= image // patch <= _MAX_PATCHES:
        key = "clip.vision.patch_size"
        message = f"Patches of {patch} in an image of {image}: 1 to {_MAX_PATCHES} can be in a row."
        refuse("C5", metadata.offset(key), key, message)
