"""Complete models with other numbers of heads, windows, groups and experts.

Their tensors have the shapes that these numbers make, so llama.cpp loads them; it may die at the first token.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.formats.build import BOOL, F32, U32, number, numbers, u32
from tests.formats.differential.bases import HEAD, Base, Pairs, make
from tests.formats.differential.cases import Case
from tests.formats.differential.oracle import Oracle

#: Without the architecture's prefix.
CHANGES: tuple[Pairs, ...] = (
    {"rope.dimension_count": u32(HEAD // 2)},
    {"rope.dimension_count": u32(HEAD * 2)},
    {"rope.dimension_count": u32(7)},
    {"attention.key_length": u32(HEAD // 2)},
    {"attention.value_length": u32(HEAD // 2)},
    {"attention.key_length": u32(HEAD // 2), "attention.value_length": u32(HEAD // 2)},
    {"attention.head_count_kv": u32(1)},
    {"attention.head_count_kv": u32(3)},
    {"attention.sliding_window_pattern": u32(1)},
    {"attention.sliding_window_pattern": numbers(BOOL, [0, 0])},
    {"ssm.group_count": u32(3)},
    {"ssm.time_step_rank": u32(3)},
    {"wkv.head_size": u32(7)},
    {"token_shift_count": u32(3)},
    {"rope.freq_base": number(F32, 9999)},
    {"interleave_moe_layer_step": u32(0)},
)
EXPERTS: tuple[Pairs, ...] = (
    {"expert_gating_func": u32(0)},
    {"expert_gating_func": u32(5)},
    {"expert_used_count": numbers(U32, [2, 0])},
    {"expert_used_count": numbers(U32, [0, 2])},
)


def cases(oracle: Oracle, folder: Path, base: Base) -> Iterator[Case]:
    """Of one architecture all of which llama.cpp makes a model, with that model's tensors."""
    has_experts = f"{base.architecture}.expert_count" in base.pairs
    for change in (*CHANGES, *(EXPERTS if has_experts else ())):
        pairs = {**base.pairs, **{f"{base.architecture}.{key}": value for key, value in change.items()}}
        tensors = make(oracle, pairs, folder)
        if tensors:
            yield Case(f"{base.architecture}: {', '.join(change)}", Base("", pairs, tensors).file)
