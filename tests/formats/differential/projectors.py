"""Small complete projectors that llama.cpp's clip loads and warms up, and mutations of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from tests.formats.build import BOOL, F32, Gguf, Tensor, number, numbers, text, texts, u32
from tests.formats.differential.bases import EMBEDDING
from tests.formats.differential.cases import (
    Case,
    Change,
    added_key,
    any_value,
    changed,
    other_value,
    without_key,
)

Pairs = dict[str, bytes]
_WIDTH, _HEADS, _FEED_FORWARD, _BLOCKS, _PATCH, _IMAGE = 32, 2, 64, 2, 4, 16
_PATCHES = (_IMAGE // _PATCH) ** 2


def _vision(kind: str, **changes: bytes) -> Pairs:
    own = {
        "image_size": u32(_IMAGE),
        "patch_size": u32(_PATCH),
        "embedding_length": u32(_WIDTH),
        "feed_forward_length": u32(_FEED_FORWARD),
        "block_count": u32(_BLOCKS),
        "projection_dim": u32(EMBEDDING),
        "attention.head_count": u32(_HEADS),
        "attention.layer_norm_epsilon": number(F32, 1e-6),
        "image_mean": numbers(F32, [0.5] * 3),
        "image_std": numbers(F32, [0.5] * 3),
        **changes,
    }
    pairs = {
        "general.architecture": text("clip"),
        "general.type": text("mmproj"),
        "clip.has_vision_encoder": number(BOOL, 1),
        "clip.projector_type": text(kind),
        "clip.use_gelu": number(BOOL, 1),
    }
    return pairs | {f"clip.vision.{name}": value for name, value in own.items()}


def _blocks(count: int) -> list[Tensor]:
    tensors = []
    for index in range(count):
        for name, shape in (
            ("attn_q", (_WIDTH, _WIDTH)),
            ("attn_k", (_WIDTH, _WIDTH)),
            ("attn_v", (_WIDTH, _WIDTH)),
            ("attn_out", (_WIDTH, _WIDTH)),
            ("ffn_up", (_WIDTH, _FEED_FORWARD)),
            ("ffn_down", (_FEED_FORWARD, _WIDTH)),
            ("ln1", (_WIDTH,)),
            ("ln2", (_WIDTH,)),
        ):
            tensors.append(Tensor(f"v.blk.{index}.{name}.weight", shape))
            tensors.append(Tensor(f"v.blk.{index}.{name}.bias", shape[-1:]))
    return tensors


def _llava() -> Gguf:
    tensors = [
        Tensor("v.class_embd", (_WIDTH,)),
        Tensor("v.patch_embd.weight", (_PATCH, _PATCH, 3, _WIDTH)),
        Tensor("v.position_embd.weight", (_WIDTH, _PATCHES + 1)),
        Tensor("v.pre_ln.weight", (_WIDTH,)),
        Tensor("v.pre_ln.bias", (_WIDTH,)),
        *_blocks(_BLOCKS),
        Tensor("mm.0.weight", (_WIDTH, EMBEDDING)),
        Tensor("mm.0.bias", (EMBEDDING,)),
        Tensor("mm.2.weight", (EMBEDDING, EMBEDDING)),
        Tensor("mm.2.bias", (EMBEDDING,)),
    ]
    return Gguf(pairs=_vision("mlp"), tensors=tuple(tensors))


def _gemma3() -> Gguf:
    tensors = [
        Tensor("v.patch_embd.weight", (_PATCH, _PATCH, 3, _WIDTH)),
        Tensor("v.patch_embd.bias", (_WIDTH,)),
        Tensor("v.position_embd.weight", (_WIDTH, _PATCHES)),
        *_blocks(_BLOCKS),
        Tensor("v.post_ln.weight", (_WIDTH,)),
        Tensor("v.post_ln.bias", (_WIDTH,)),
        Tensor("mm.input_projection.weight", (EMBEDDING, _WIDTH)),
        Tensor("mm.soft_emb_norm.weight", (_WIDTH,)),
    ]
    return Gguf(pairs=_vision("gemma3"), tensors=tuple(tensors))


def _gemma4_unified() -> Gguf:
    """Without a transformer: the converter writes 0 for its blocks, heads and feed-forward length."""
    zeros = {name: u32(0) for name in ("feed_forward_length", "block_count", "attention.head_count")}
    patch = (3 * _PATCH) ** 2 * 3
    norms = [
        Tensor(f"v.patch_norm.{index}.{part}", (size,))
        for index, size in ((1, patch), (2, _WIDTH), (3, _WIDTH))
        for part in ("weight", "bias")
    ]
    tensors = [
        Tensor("v.patch_embd.weight", (patch, _WIDTH)),
        Tensor("v.patch_embd.bias", (_WIDTH,)),
        Tensor("v.position_embd.weight", (_WIDTH, 64, 2)),
        *norms,
        Tensor("mm.input_projection.weight", (_WIDTH, EMBEDDING)),
    ]
    return Gguf(pairs=_vision("gemma4uv", image_size=u32(224), **zeros), tensors=tuple(tensors))


def projectors() -> list[Gguf]:
    """The bases."""
    return [_llava(), _gemma3(), _gemma4_unified()]


#: Keys that clip reads, beyond those that the bases have.
KEYS = (
    "clip.vision.attention.head_count_kv",
    "clip.vision.attention.head_dim",
    "clip.vision.feature_layer",
    "clip.vision.projector.scale_factor",
    "clip.vision.spatial_merge_size",
    "clip.vision.image_grid_pinpoints",
    "clip.vision.mm_patch_merge_type",
    "clip.use_silu",
    "clip.has_audio_encoder",
    "clip.has_llava_projector",
    "clip.vision.projector_type",
    "clip.minicpmv_version",
    "clip.minicpmv_query_num",
    "general.description",
    "clip.audio.chunk_size",
    "clip.vision.window_size",
    "clip.vision.n_wa_pattern",
    "clip.vision.image_min_pixels",
)


def _kind_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    kind = rng.choice(
        ("mlp", "gemma3", "gemma4uv", "ldp", "resampler", "qwen2vl_merger", "idefics3", "no such", "")
    )
    return "kind", file.but({"clip.projector_type": text(kind)})


def _size_changed(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    """The numbers that clip divides by and makes arrays of."""
    names = (
        "image_size",
        "patch_size",
        "block_count",
        "attention.head_count",
        "feed_forward_length",
        "embedding_length",
    )
    name = f"clip.vision.{rng.choice(names)}"
    size = rng.choice(
        (0, 0, 1, 2, 3, 4, 8, 15, 16, 17, 64, 513, 4097, 8192, 8193, 65_537, 2**20 + 1, 2**31 - 1, 2**31)
    )
    return name, file.but({name: u32(size)})


def _text_of_numbers(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    name = rng.choice(("clip.vision.image_mean", "clip.vision.image_std"))
    value = rng.choice((texts(["a"] * 3), numbers(F32, [0.5] * rng.choice((0, 1, 2, 3, 4))), any_value(rng)))
    return name, file.but({name: value})


CHANGES: tuple[Change, ...] = (
    other_value,
    other_value,
    without_key,
    added_key(KEYS),
    _kind_changed,
    _size_changed,
    _size_changed,
    _text_of_numbers,
)


def cases(seed: int, count: int, bases: Sequence[Gguf]) -> Iterator[Case]:
    """Complete projectors with odd numbers."""
    for index in range(count):
        rng = random.Random(f"projector {seed} {index}")
        yield Case(*changed(rng, bases[index % len(bases)], CHANGES, most=2))
