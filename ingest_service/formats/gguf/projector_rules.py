"""Rule C5: the keys of a projector that llama.cpp's clip dies of.

What clip refuses with words is left to it. The numbers were tried with llama.cpp b11549, which aborts at any
other type than the one it asks for, and whose graphs abort where a number does not fit another one.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingest_service.formats.gguf.types import BOOL, F32, I32, NAMES, STRING, U32
from ingest_service.formats.gguf.values import Metadata

#: Keys of a part (vision or audio), and the numbers that they may have. Converters write 0 where there is no
#: transformer (Gemma 4's unified projector), and as size of images where it is not fixed.
_NUMBERS = {
    "embedding_length": (1, 2**20),
    "feed_forward_length": (0, 2**31 - 1),
    "block_count": (0, 512),
    "projection_dim": (0, 2**31 - 1),
    "attention.head_count": (0, 2**31 - 1),
    "attention.head_count_kv": (0, 2**31 - 1),
    "attention.head_dim": (0, 65_536),
}
_VISION_NUMBERS = {"image_size": (0, 65_536), "patch_size": (1, 4096), "projector.scale_factor": (0, 65_535)}
_AUDIO_NUMBERS = {"num_mel_bins": (0, 2**31 - 1), "chunk_size": (1, 8192)}
_MORE = {
    "clip.minicpmv_query_num": U32,
    "clip.minicpmv_version": I32,
    "clip.use_gelu": BOOL,
    "clip.use_silu": BOOL,
}
_ANY = {
    "clip.has_vision_encoder": BOOL,
    "clip.has_audio_encoder": BOOL,
    "clip.projector_type": STRING,
    "general.name": STRING,
    "general.description": STRING,
}
#: Read of some kinds only.
_QWEN = {"vision.spatial_merge_size": U32, "vision.n_wa_pattern": U32}
_OF_KINDS = {
    "qwen2vl_merger": _QWEN,
    "qwen2.5vl_merger": _QWEN,
    "qwen3vl_merger": _QWEN,
    "pixtral": {"vision.spatial_merge_size": U32},
}
#: They make one patch of several, and abort where one is made of one.
_MERGED = frozenset({"idefics3", "lfm2"})
#: They split an image of one size into patches, and the width among the heads.
_FIXED_SIZE = frozenset({"mlp", "ldp", "ldpv2", "gemma3", "idefics3", "janus_pro"})


@dataclass(frozen=True, slots=True)
class _Part:
    """The keys of one encoder."""

    metadata: Metadata
    name: str

    def key(self, suffix: str) -> str:
        return f"clip.{self.name}.{suffix}"

    def number(self, suffix: str) -> int | None:
        return self.metadata.integer(self.key(suffix))

    def refuse(self, suffix: str, message: str) -> None:
        key = self.key(suffix)
        self.metadata.faults.add("C5", self.metadata.offset(key), key, message)


def check_projector(metadata: Metadata) -> None:
    """C5, if the file is a projector."""
    if metadata.architecture != "clip":
        return
    for key, kind in _ANY.items():
        _check_type(metadata, key, kind)
    for suffix, kind in _OF_KINDS.get(metadata.text("clip.projector_type") or "", {}).items():
        _check_type(metadata, f"clip.{suffix}", kind)
    names = ("vision", "audio")
    # Of an encoder that is not there nothing is read; older files do not say which there are.
    said = [name for name in names if _flag(metadata, f"clip.has_{name}_encoder")]
    for name in said or names:
        part = _Part(metadata, name)
        numbers = _NUMBERS | (_VISION_NUMBERS if name == "vision" else _AUDIO_NUMBERS)
        # Every number is checked, so that all that is wrong is told at once.
        checked = {suffix: _check_number(part, suffix, *limits) for suffix, limits in numbers.items()}
        if all(checked.values()):
            _check_together(part)
        for key, kind in {
            part.key("attention.layer_norm_epsilon"): F32,
            part.key("mm_patch_merge_type"): STRING,
            **_MORE,
        }.items():
            _check_type(metadata, key, kind)
        if not metadata.text("clip.projector_type"):
            _check_type(metadata, part.key("projector_type"), STRING)


def _flag(metadata: Metadata, key: str) -> bool:
    value = metadata.values.get(key)
    return value is not None and value.data is True


def _check_type(metadata: Metadata, key: str, kind: int) -> bool:
    value = metadata.values.get(key)
    if value is None or value.type == kind:
        return True
    message = f"{key} is of type {NAMES[kind]}, not {value.type_name}: llama.cpp aborts."
    metadata.faults.add("C5", value.offset, key, message)
    return False


def _check_number(part: _Part, suffix: str, least: int, most: int) -> bool:
    if not _check_type(part.metadata, part.key(suffix), U32):
        return False
    number = part.number(suffix)
    if number is None or least <= number <= most:
        return True
    part.refuse(suffix, f"{part.key(suffix)} is {least} to {most}, not {number}.")
    return False


def _check_together(part: _Part) -> None:
    """The numbers against each other, where clip divides by them or lays its graph out by them."""
    kind = part.metadata.text("clip.projector_type")
    heads, blocks, width = (
        part.number(name) for name in ("attention.head_count", "block_count", "embedding_length")
    )
    if heads == 0 and blocks:
        part.refuse("attention.head_count", f"There are {blocks} blocks and no attention heads in them.")
    if kind in _MERGED and part.name == "vision" and (part.number("projector.scale_factor") or 1) <= 1:
        key = part.key("projector.scale_factor")
        message = f"{key} is at least 2 for a projector of this kind: llama.cpp aborts."
        part.metadata.faults.add("C5", part.metadata.offset(key), key, message)
    if kind not in _FIXED_SIZE:
        return
    if heads and blocks and width and width % heads and not part.number("attention.head_dim"):
        message = f"A width of {width} cannot be divided among {heads} heads: llama.cpp aborts."
        part.refuse("attention.head_count", message)
    image, patch = part.number("image_size"), part.number("patch_size")
    if image is not None and patch and image < patch:
        message = f"Patches of {patch} in an image of {image}: a projector of this kind has at least one."
        part.refuse("patch_size", message)
