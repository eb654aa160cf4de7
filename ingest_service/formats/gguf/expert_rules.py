"""Rule M4: experts."""

from __future__ import annotations

from collections.abc import Collection

from ingest_service.formats.gguf.architectures import architectures
from ingest_service.formats.gguf.limits import GgufLimits
from ingest_service.formats.gguf.number_types import is_u32
from ingest_service.formats.gguf.values import Metadata

#: llama.cpp aborts of these without experts.
_NEED_EXPERTS = frozenset({"smallthinker", "bailingmoe2", "grovemoe", "llada-moe"})
#: They abort of a gating function that is none of 1 to 4: a key that is there and 0 is none to some of them,
#: one that is not there to fewer.
_GATED = architectures(
    "afmoe bailingmoe2 deepseek2-ocr dots1 exaone-moe glm4moe lfm2moe minimax-m2 smallthinker"
)
_GATED_NOT_BY_0 = architectures("bailingmoe2 dots1 exaone-moe lfm2moe minimax-m2 smallthinker")
_GATED_NOT_BY_NOTHING = frozenset({"dots1", "minimax-m2", "smallthinker"})
_LAST_GATING = 4
#: They divide by what the first block uses, which may have no experts.
_DIVIDE_BY_THE_FIRST = frozenset({"afmoe", "ernie4_5-moe"})
#: They read for each block how many experts it uses.
_USE_EXPERTS_BY_BLOCK = architectures(
    "afmoe arctic bailingmoe bailingmoe2 dbrx deepseek deepseek2-ocr dots1 ernie4_5-moe exaone-moe glm4moe"
    " gpt-oss grok grovemoe hunyuan-moe lfm2moe llada-moe minimax-m2 olmoe phimoe qwen2moe qwen3moe"
    " qwen3vlmoe rnd1 smallthinker"
)
_ONE_EXPERT_IS_NONE = frozenset({"hunyuan-dense", "hunyuan_vl", "hunyuan-vl"})


def check_experts(metadata: Metadata, prefix: str, limits: GgufLimits) -> None:
    """How many there are, how many are used, in which groups."""
    name, key = prefix + "expert_count", prefix + "expert_used_count"
    used_array = metadata.array(key)
    if not all([is_u32(metadata, name), used_array is not None or is_u32(metadata, key)]):
        return
    if not (metadata.is_complete or name in metadata.values):
        return
    experts = metadata.integer(name) or 0
    if metadata.architecture in _ONE_EXPERT_IS_NONE and experts <= 1:
        return
    used = metadata.integer(key) or 0
    if used_array is not None:
        # One number for each block: the newest llama.cpp takes that, older ones refuse it in words.
        used = max((int(number) for number in used_array.numbers()), default=0)
    if experts > limits.max_experts:
        message = f"{experts} experts; at most {limits.max_experts}."
        metadata.faults.add("M4", metadata.offset(name), name, message)
    elif not experts and metadata.architecture in _NEED_EXPERTS:
        message = "llama.cpp aborts if a model of this architecture has no experts."
        if name in metadata.values:
            metadata.faults.add("M4", metadata.offset(name), name, message)
        else:
            metadata.add_missing("M4", name, message)
    elif used > experts or (experts and not used):
        message = f"{used} of {experts} experts used: llama.cpp would abort."
        if key in metadata.values:
            metadata.faults.add("M4", metadata.offset(key), key, message)
        else:
            metadata.add_missing("M4", key, message)
    else:
        _check_expert_groups(metadata, prefix, experts)
        _check_gating(metadata, prefix, experts)


def _check_gating(metadata: Metadata, prefix: str, experts: int) -> None:
    if not experts:
        return
    key, architecture = prefix + "expert_gating_func", metadata.architecture
    function = metadata.integer(key)
    if key not in metadata.values:
        if architecture in _GATED_NOT_BY_NOTHING:
            message = f"The model does not say its {key}: llama.cpp would abort."
            metadata.add_missing("M4", key, message)
    elif function is not None and (
        (architecture in _GATED and function > _LAST_GATING)
        or (architecture in _GATED_NOT_BY_0 and function == 0)
    ):
        message = f"{key} is {function}: llama.cpp aborts unless it is 1 to {_LAST_GATING}."
        metadata.faults.add("M4", metadata.offset(key), key, message)


def check_used_experts(metadata: Metadata, names: Collection[bytes]) -> None:
    """M4: a block that has experts and uses none of them; `names` are the tensors'."""
    key = metadata.architecture + ".expert_used_count"
    array = metadata.array(key)
    if array is None or metadata.architecture not in _USE_EXPERTS_BY_BLOCK:
        return
    for block, used in enumerate(array.numbers()):
        divides = block == 0 and metadata.architecture in _DIVIDE_BY_THE_FIRST
        if divides and not used:
            message = "The first block uses no experts: llama.cpp divides by how many it uses."
            metadata.faults.add("M4", metadata.offset(key), key, message)
            return
        if not used and b"blk.%d.ffn_gate_inp.weight" % block in names:
            message = f"Block {block} has experts and uses none of them: llama.cpp would crash."
            metadata.faults.add("M4", metadata.offset(key), key, message)
            return


def _check_expert_groups(metadata: Metadata, prefix: str, experts: int) -> None:
    key, used_key = prefix + "expert_group_count", prefix + "expert_group_used_count"
    groups, used = metadata.integer(key) or 0, metadata.integer(used_key) or 0
    if groups and (groups >= experts or experts % groups):
        message = (
            f"{groups} groups of {experts} experts: llama.cpp aborts unless they are fewer and divide them."
        )
        metadata.faults.add("M4", metadata.offset(key), key, message)
    elif groups > 1 and not 0 < used < groups:
        message = f"{used} of {groups} groups of experts used: llama.cpp would abort."
        if used_key in metadata.values:
            metadata.faults.add("M4", metadata.offset(used_key), used_key, message)
        else:
            metadata.add_missing("M4", used_key, message)
