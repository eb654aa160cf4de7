"""Rule C7: the tensors of a projector that are missing or do not fit, where llama.cpp's clip dies of it.

Tried with llama.cpp b11549, which builds its graph when it loads a projector. A missing tensor that it names
in words is left to it, and so is every kind of projector that is not named here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingest_service.formats.gguf.projector_graph import Misfit, Shapes
from ingest_service.formats.gguf.tensors import Tensors
from ingest_service.formats.gguf.values import Metadata

_LLAVA = frozenset({"mlp", "ldp", "ldpv2"})
#: They have a position for each patch of an image of one size.
_FIXED_POSITIONS = frozenset({"gemma3", "idefics3", "janus_pro"})
_QWEN2 = frozenset({"qwen2vl_merger", "qwen2.5vl_merger"})
_NEED_POSITIONS = frozenset({"internvl", "lfm2"})
#: Patches, then blocks as all of these have them; what follows the blocks is not looked at.
_PLAIN = _FIXED_POSITIONS | {"lfm2", "pixtral", "internvl"}
#: clip swaps the two where a file has them the wrong way round.
_MAY_BE_SWAPPED = _LLAVA | _QWEN2 | {"gemma3", "idefics3"}
_GEMMA4_MERGE = 3
#: Their two last layers; how wide the rows are that come in depends on how many patches become one.
_ENDS = {
    "janus_pro": ("mm.0", "mm.1"),
    "lfm2": ("mm.1", "mm.2"),
    "pixtral": ("mm.1", "mm.2"),
    "internvl": ("mm.model.mlp.1", "mm.model.mlp.3"),
}


def _layers(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.{part}" for name in names for part in ("weight", "bias"))


#: Before it builds its graph clip loads these, and refuses in words if one is missing.
_LOADED = {
    "gemma3": ("mm.input_projection.weight", "mm.soft_emb_norm.weight"),
    "idefics3": ("mm.model.fc.weight",),
    "janus_pro": _layers("mm.0", "mm.1"),
    "lfm2": _layers("mm.1", "mm.2"),
    "pixtral": ("mm.1.weight", "mm.2.weight", "v.token_embd.img_break"),
    "internvl": _layers("mm.model.mlp.0", "mm.model.mlp.1", "mm.model.mlp.3"),
    "gemma4uv": (
        "mm.input_projection.weight",
        *_layers("v.patch_norm.1", "v.patch_norm.2", "v.patch_norm.3"),
    ),
    **dict.fromkeys(_QWEN2, _layers("mm.0", "mm.2")),
}
_LOADED_OF_BLOCKS = ("attn_out", "ffn_up", "ffn_down")


@dataclass(frozen=True, slots=True)
class _Projector:
    """The numbers of one encoder of images, all of them known."""

    kind: str
    shapes: Shapes
    width: int
    heads: int
    key_heads: int
    head_width: int
    blocks: int
    patch: int
    image: int
    #: So many patches become one, in both directions.
    merge: int


def check_projector_tensors(metadata: Metadata, tensors: Tensors) -> None:
    """C7, of a projector for images whose keys broke no rule: its numbers are within bounds."""
    projector = None if metadata.faults.found or not tensors.is_sound else _projector(metadata, tensors)
    if projector is None:
        return
    try:
        _check(projector, has_layers_of_features="clip.vision.feature_layer" in metadata.values)
    except Misfit as misfit:
        known = tensors.described.get(misfit.tensor)
        message = f"Of {misfit.tensor} llama.cpp dies: {misfit.needed}."
        metadata.faults.add("C7", known.offset if known else None, misfit.tensor, message)


def _projector(metadata: Metadata, tensors: Tensors) -> _Projector | None:
    """None where a number is missing, which llama.cpp says in words, or where images are not its matter."""
    kind = metadata.text("clip.projector_type")
    flag = metadata.values.get("clip.has_vision_encoder")
    if not kind or flag is None or flag.data is not True:
        return None
    width, heads, blocks, patch, image = (
        metadata.integer(f"clip.vision.{name}")
        for name in ("embedding_length", "attention.head_count", "block_count", "patch_size", "image_size")
    )
    if width is None or heads is None or blocks is None or patch is None or image is None:
        return None
    key_heads = metadata.integer("clip.vision.attention.head_count_kv")
    head_width = metadata.integer("clip.vision.attention.head_dim")
    merge = metadata.integer("clip.vision.projector.scale_factor")
    return _Projector(
        kind=kind,
        shapes=Shapes(tensors.described),
        width=width,
        heads=heads,
        key_heads=heads if key_heads is None else key_heads,
        head_width=head_width or (width // heads if heads else 0),
        blocks=blocks,
        patch=patch,
        image=image,
        merge=_GEMMA4_MERGE if merge is None else merge,
    )


def _is_loaded(projector: _Projector) -> bool:
    """All tensors are there that clip looks for; which of the others its graph needs is another matter."""
    of_blocks = (
        f"v.blk.{index}.{part}.weight" for index in range(projector.blocks) for part in _LOADED_OF_BLOCKS
    )
    return all(
        projector.shapes.has(name) for names in (of_blocks, _LOADED.get(projector.kind, ())) for name in names
    )


def _check(projector: _Projector, *, has_layers_of_features: bool) -> None:
    if not _is_loaded(projector):
        return
    if projector.kind in _LLAVA:
        _check_llava(projector, has_layers_of_features=has_layers_of_features)
    elif projector.kind in _QWEN2:
        _check_qwen2(projector)
    elif projector.kind == "gemma4uv":
        _check_gemma4_unified(projector)
    elif projector.kind in _PLAIN:
        _check_plain(projector)


def _check_patches(projector: _Projector, *, is_image_fixed: bool) -> int:
    """How many there are, if the image has a fixed size."""
    shapes, width = projector.shapes, projector.width
    image = projector.image if is_image_fixed else None
    shapes.convolved("v.patch_embd.weight", width, projector.patch, image)
    shapes.added_if_there("v.patch_embd.bias", width=width)
    return (projector.image // projector.patch) ** 2


def _check_llava(projector: _Projector, *, has_layers_of_features: bool) -> None:
    shapes, width = projector.shapes, projector.width
    _check_patches(projector, is_image_fixed=True)
    if shapes.has("v.class_embd"):
        shapes.joined("v.class_embd", width)
    # As many rows of it are taken as there are patches.
    shapes.added("v.position_embd.weight", width)
    shapes.norm_if_there("v.pre_ln", width)
    if has_layers_of_features:
        # Several blocks' results are joined: how wide they are together is not worked out here.
        return
    # The last block is left out: its result is not used.
    for index in range(projector.blocks - 1):
        _check_block(projector, f"v.blk.{index}", has_joint_keys=False, key_heads=projector.heads)
    shapes.norm_if_there("v.post_ln", width)
    if projector.kind == "mlp":
        _check_llava_end(shapes, width)


def _check_llava_end(shapes: Shapes, width: int) -> None:
    if not shapes.has("mm.3.weight"):
        shapes.whole_layer("mm.2", shapes.whole_layer("mm.0", width))
        return
    # As Yi has it, with two norms.
    for layer, norm in (("mm.0", "mm.1"), ("mm.3", "mm.4")):
        width = shapes.whole_layer(layer, width)
        shapes.added(f"{norm}.weight", width)
        shapes.added(f"{norm}.bias", width)


def _check_plain(projector: _Projector) -> None:
    shapes, width = projector.shapes, projector.width
    is_fixed = projector.kind in _FIXED_POSITIONS
    rows = _check_patches(projector, is_image_fixed=is_fixed)
    if is_fixed and shapes.has("v.position_embd.weight"):
        shapes.added("v.position_embd.weight", width, rows)
    if projector.kind == "internvl":
        shapes.joined("v.class_embd", width)
    if projector.kind in _NEED_POSITIONS:
        shapes.needed("v.position_embd.weight")
    shapes.norm_if_there("v.pre_ln", width)
    for index in range(projector.blocks):
        _check_block(projector, f"v.blk.{index}", has_joint_keys=True, key_heads=projector.key_heads)
    shapes.norm_if_there("v.post_ln", width)
    if projector.kind == "gemma3":
        shapes.added("mm.soft_emb_norm.weight", width)
        # It is turned round before rows are multiplied with it.
        if shapes.needed("mm.input_projection.weight")[1] != width:
            raise Misfit("mm.input_projection.weight", f"it has to have {width} rows")
    elif projector.kind in _ENDS:
        first, last = _ENDS[projector.kind]
        inner = shapes.needed(f"{first}.weight")[1]
        shapes.added_if_there(f"{first}.bias", width=inner)
        shapes.layer(last, inner)


def _check_block(projector: _Projector, name: str, *, has_joint_keys: bool, key_heads: int) -> None:
    """One block of a transformer; `has_joint_keys`: queries, keys and values may be one tensor."""
    shapes, width = projector.shapes, projector.width
    shapes.added_if_there(f"{name}.ln1.weight", f"{name}.ln1.bias", width=width)
    queries = projector.heads * projector.head_width
    if has_joint_keys and shapes.has(f"{name}.attn_qkv.weight"):
        if shapes.layer(f"{name}.attn_qkv", width) < queries:
            raise Misfit(f"{name}.attn_qkv.weight", f"it has to make {projector.heads} heads of queries")
    else:
        for part, heads in (("q", projector.heads), ("k", key_heads), ("v", key_heads)):
            tensor, made = f"{name}.attn_{part}", heads * projector.head_width
            if shapes.layer(tensor, width) != made:
                message = f"it has to make {heads} heads of {projector.head_width} numbers"
                raise Misfit(f"{tensor}.weight", message)
    if shapes.layer(f"{name}.attn_out", queries) != width:
        raise Misfit(f"{name}.attn_out.weight", f"it has to make rows of {width}")
    _check_feed_forward(projector, name)


def _check_feed_forward(projector: _Projector, name: str) -> None:
    shapes, width = projector.shapes, projector.width
    shapes.added_if_there(f"{name}.ln2.weight", f"{name}.ln2.bias", width=width)
    up, down = f"{name}.ffn_up", f"{name}.ffn_down"
    if projector.kind in _MAY_BE_SWAPPED and shapes.needed(f"{down}.weight")[0] == width:
        up, down = down, up
    inner = shapes.layer(up, width)
    if shapes.has(f"{name}.ffn_gate.weight") and shapes.layer(f"{name}.ffn_gate", width) != inner:
        raise Misfit(f"{name}.ffn_gate.weight", f"it has to make rows of {inner}, as {up}.weight does")
    if width % (shapes.layer(down, inner) or 1):
        raise Misfit(f"{down}.weight", f"it has to make rows of {width}")


def _check_qwen2(projector: _Projector) -> None:
    shapes, width = projector.shapes, projector.width
    shapes.unwanted("v.patch_embd.bias")
    shapes.unwanted("v.class_embd")
    for name in ("v.patch_embd.weight", "v.patch_embd.weight.1"):
        shapes.convolved(name, width, projector.patch, None)
    for index in range(projector.blocks):
        name = f"v.blk.{index}"
        for part in "qkv":
            shapes.needed(f"{name}.attn_{part}.weight")
            shapes.needed(f"{name}.attn_{part}.bias")
        _check_block(projector, name, has_joint_keys=False, key_heads=projector.heads)
    shapes.norm_if_there("v.post_ln", width)
    # Four patches become one row.
    shapes.whole_layer("mm.2", shapes.whole_layer("mm.0", 4 * width))


def _check_gemma4_unified(projector: _Projector) -> None:
    """It has no transformer: patches are multiplied with a matrix, and the positions are two tables."""
    shapes, width = projector.shapes, projector.width
    side = projector.patch * projector.merge
    inner = 3 * side * side
    shapes.added("v.patch_norm.1.weight", inner)
    shapes.added("v.patch_norm.1.bias", inner)
    inner = shapes.whole_layer("v.patch_embd", inner)
    if inner % width:
        raise Misfit("v.patch_embd.weight", f"it has to make rows of {width}, not {inner}")
    for index in (2, 3):
        shapes.added(f"v.patch_norm.{index}.weight", inner)
        shapes.added(f"v.patch_norm.{index}.bias", inner)
    row, rows, tables, more = shapes.needed("v.position_embd.weight")
    if rows and row * tables * more < 2 * width:
        raise Misfit("v.position_embd.weight", f"it has to be two tables with rows of {width}")
    shapes.multiplied("mm.input_projection.weight", inner)
