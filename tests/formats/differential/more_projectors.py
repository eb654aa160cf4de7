"""Projectors of more kinds, each with all tensors that its graph needs."""

from __future__ import annotations

from tests.formats.build import Gguf, Tensor, u32
from tests.formats.differential.bases import EMBEDDING
from tests.formats.differential.projectors import BLOCKS, PATCH, PATCHES, WIDTH, blocks, vision

_MERGE = 2
_MERGED = WIDTH * _MERGE**2


def _layer(name: str, width: int, out: int) -> tuple[Tensor, Tensor]:
    return Tensor(f"{name}.weight", (width, out)), Tensor(f"{name}.bias", (out,))


def _patches(position_rows: int = 0) -> list[Tensor]:
    tensors = [Tensor("v.patch_embd.weight", (PATCH, PATCH, 3, WIDTH))]
    if position_rows:
        tensors.append(Tensor("v.position_embd.weight", (WIDTH, position_rows)))
    return tensors


def _yi() -> Gguf:
    """A llava with norms between its layers, and whose feed-forward tensors have each other's names."""
    swapped = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}
    renamed = []
    for tensor in blocks(BLOCKS):
        parts = str(tensor.name).split(".")
        parts[3] = swapped.get(parts[3], parts[3])
        renamed.append(Tensor(".".join(parts), tensor.shape))
    tensors = [
        *_patches(PATCHES),
        *renamed,
        *_layer("mm.0", WIDTH, EMBEDDING),
        Tensor("mm.1.weight", (EMBEDDING,)),
        Tensor("mm.1.bias", (EMBEDDING,)),
        *_layer("mm.2", EMBEDDING, EMBEDDING),
        *_layer("mm.3", EMBEDDING, EMBEDDING),
        Tensor("mm.4.weight", (EMBEDDING,)),
        Tensor("mm.4.bias", (EMBEDDING,)),
    ]
    return Gguf(pairs=vision("mlp"), tensors=tuple(tensors))


def _idefics3() -> Gguf:
    tensors = [*_patches(PATCHES), *blocks(BLOCKS), Tensor("mm.model.fc.weight", (_MERGED, EMBEDDING))]
    pairs = vision("idefics3", **{"projector.scale_factor": u32(_MERGE)})
    return Gguf(pairs=pairs, tensors=tuple(tensors))


def _janus_pro() -> Gguf:
    ends = (*_layer("mm.0", WIDTH, EMBEDDING), *_layer("mm.1", EMBEDDING, EMBEDDING))
    return Gguf(pairs=vision("janus_pro"), tensors=(*_patches(PATCHES), *blocks(BLOCKS), *ends))


def _lfm2() -> Gguf:
    ends = (*_layer("mm.1", _MERGED, EMBEDDING), *_layer("mm.2", EMBEDDING, EMBEDDING))
    pairs = vision("lfm2", **{"projector.scale_factor": u32(_MERGE)})
    return Gguf(pairs=pairs, tensors=(*_patches(PATCHES), *blocks(BLOCKS), *ends))


def _pixtral() -> Gguf:
    ends = (*_layer("mm.1", WIDTH, EMBEDDING), *_layer("mm.2", EMBEDDING, EMBEDDING))
    line = Tensor("v.token_embd.img_break", (EMBEDDING,))
    return Gguf(pairs=vision("pixtral"), tensors=(*_patches(), *blocks(BLOCKS), *ends, line))


def _internvl() -> Gguf:
    """With queries, keys and values in one tensor."""
    joint = [
        tensor
        for tensor in blocks(BLOCKS)
        if str(tensor.name).split(".")[3] not in ("attn_q", "attn_k", "attn_v")
    ]
    for index in range(BLOCKS):
        joint += _layer(f"v.blk.{index}.attn_qkv", WIDTH, 3 * WIDTH)
    tensors = [
        *_patches(PATCHES + 1),
        Tensor("v.class_embd", (WIDTH,)),
        *joint,
        Tensor("mm.model.mlp.0.weight", (_MERGED,)),
        Tensor("mm.model.mlp.0.bias", (_MERGED,)),
        *_layer("mm.model.mlp.1", _MERGED, EMBEDDING),
        *_layer("mm.model.mlp.3", EMBEDDING, EMBEDDING),
    ]
    pairs = vision("internvl", **{"projector.scale_factor": u32(_MERGE)})
    return Gguf(pairs=pairs, tensors=tuple(tensors))


def _qwen2(kind: str) -> Gguf:
    tensors = [
        *_patches(),
        Tensor("v.patch_embd.weight.1", (PATCH, PATCH, 3, WIDTH)),
        *blocks(BLOCKS),
        Tensor("v.post_ln.weight", (WIDTH,)),
        *_layer("mm.0", 4 * WIDTH, 4 * WIDTH),
        *_layer("mm.2", 4 * WIDTH, EMBEDDING),
    ]
    pairs = vision(kind, image_size=u32(560))
    return Gguf(pairs=pairs, tensors=tuple(tensors))


def more_projectors() -> list[Gguf]:
    """The bases of further kinds."""
    return [
        _yi(),
        _idefics3(),
        _janus_pro(),
        _lfm2(),
        _pixtral(),
        _internvl(),
        _qwen2("qwen2vl_merger"),
        _qwen2("qwen2.5vl_merger").but({"clip.vision.n_wa_pattern": u32(0)}),
    ]
