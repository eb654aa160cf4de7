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
WIDTH, HEADS, _FEED_FORWARD, BLOCKS, PATCH, _IMAGE = 32, 2, 64, 2, 4, 16
PATCHES = (_IMAGE // PATCH) ** 2


def vision(kind: str, **changes: bytes) -> Pairs:
    own = {
        "image_size": u32(_IMAGE),
        "patch_size": u32(PATCH),
        "embedding_length": u32(WIDTH),
        "feed_forward_length": u32(_FEED_FORWARD),
        "block_count": u32(BLOCKS),
        "projection_dim": u32(EMBEDDING),
        "attention.head_count": u32(HEADS),
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


def blocks(count: int) -> list[Tensor]:
    tensors = []
    for index in range(count):
        for name, shape in (
            ("attn_q", (WIDTH, WIDTH)),
            ("attn_k", (WIDTH, WIDTH)),
            ("attn_v", (WIDTH, WIDTH)),
            ("attn_out", (WIDTH, WIDTH)),
            ("ffn_up", (WIDTH, _FEED_FORWARD)),
            ("ffn_down", (_FEED_FORWARD, WIDTH)),
            ("ln1", (WIDTH,)),
            ("ln2", (WIDTH,)),
        ):
            tensors.append(Tensor(f"v.blk.{index}.{name}.weight", shape))
            tensors.append(Tensor(f"v.blk.{index}.{name}.bias", shape[-1:]))
    return tensors


def _llava() -> Gguf:
    tensors = [
        Tensor("v.class_embd", (WIDTH,)),
        Tensor("v.patch_embd.weight", (PATCH, PATCH, 3, WIDTH)),
        Tensor("v.position_embd.weight", (WIDTH, PATCHES + 1)),
        Tensor("v.pre_ln.weight", (WIDTH,)),
        Tensor("v.pre_ln.bias", (WIDTH,)),
        *blocks(BLOCKS),
        Tensor("mm.0.weight", (WIDTH, EMBEDDING)),
        Tensor("mm.0.bias", (EMBEDDING,)),
        Tensor("mm.2.weight", (EMBEDDING, EMBEDDING)),
        Tensor("mm.2.bias", (EMBEDDING,)),
    ]
    return Gguf(pairs=vision("mlp"), tensors=tuple(tensors))


def _gemma3() -> Gguf:
    tensors = [
        Tensor("v.patch_embd.weight", (PATCH, PATCH, 3, WIDTH)),
        Tensor("v.patch_embd.bias", (WIDTH,)),
        Tensor("v.position_embd.weight", (WIDTH, PATCHES)),
        *blocks(BLOCKS),
        Tensor("v.post_ln.weight", (WIDTH,)),
        Tensor("v.post_ln.bias", (WIDTH,)),
        Tensor("mm.input_projection.weight", (EMBEDDING, WIDTH)),
        Tensor("mm.soft_emb_norm.weight", (WIDTH,)),
    ]
    return Gguf(pairs=vision("gemma3"), tensors=tuple(tensors))


def _gemma4_unified() -> Gguf:
    """Without a transformer: the converter writes 0 for its blocks, heads and feed-forward length."""
    zeros = {name: u32(0) for name in ("feed_forward_length", "block_count", "attention.head_count")}
    patch = (3 * PATCH) ** 2 * 3
    norms = [
        Tensor(f"v.patch_norm.{index}.{part}", (size,))
        for index, size in ((1, patch), (2, WIDTH), (3, WIDTH))
        for part in ("weight", "bias")
    ]
    tensors = [
        Tensor("v.patch_embd.weight", (patch, WIDTH)),
        Tensor("v.patch_embd.bias", (WIDTH,)),
        Tensor("v.position_embd.weight", (WIDTH, 64, 2)),
        *norms,
        Tensor("mm.input_projection.weight", (WIDTH, EMBEDDING)),
    ]
    return Gguf(pairs=vision("gemma4uv", image_size=u32(224), **zeros), tensors=tuple(tensors))


def projectors() -> list[Gguf]:
    """Bases of some kinds."""
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


def _tensor_gone(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    index = rng.randrange(len(file.tensors))
    kept = (*file.tensors[:index], *file.tensors[index + 1 :])
    return f"{file.tensors[index].name!s} gone", file.but(tensors=kept)


def _tensor_reshaped(rng: random.Random, file: Gguf) -> tuple[str, Gguf]:
    """One number of a tensor's shape changed, as a model of another size has it, or two of them swapped."""
    tensors = list(file.tensors)
    index = rng.randrange(len(tensors))
    old = tensors[index]
    shape = list(old.shape)
    place = rng.randrange(len(shape))
    if len(shape) > 1 and rng.random() < 0.2:
        shape[0], shape[1] = shape[1], shape[0]
    else:
        shape[place] = rng.choice((1, shape[place] * 2, max(1, shape[place] // 2), shape[place] + 1))
    tensors[index] = Tensor(old.name, tuple(shape))
    return f"{old.name!s} {old.shape} is {shape}", file.but(tensors=tuple(tensors))


CHANGES: tuple[Change, ...] = (
    _tensor_gone,
    _tensor_reshaped,
    _tensor_reshaped,
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
