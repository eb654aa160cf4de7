"""Rules that are policies: a setting makes a warning of each, and of no rule that a program needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest_service.formats import FormatLimits, FormatReader
from ingest_service.formats.faults import MAX_MORE_FAULTS
from ingest_service.formats.gguf import GgufLimits
from ingest_service.formats.policies import POLICIES, policies_named, why_no_policy
from tests.formats.build import F32, Gguf, Tensor, counted, number, text, u32
from tests.formats.gguf_rows import ROWS, SHARD, G, Row
from tests.formats.test_rule_table import in_code

_DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
LIFTED = GgufLimits(rules_as_warnings=tuple(sorted(POLICIES)))
#: But the one that is no GGUF to whoever tells formats apart.
BAD = [row for row in ROWS if row.id != "H4: big-endian magic"]
#: Rows of a policy's id that protect a program all the same.
DEADLY = {
    "T1: empty name", "T1: 64 bytes", "T1: 2^64 - 1 bytes",
    "M2: none llama.block_count", "M2: text llama.block_count",
}  # fmt: skip


def read(file: Gguf, limits: GgufLimits = LIFTED, size_bytes: int | None = None) -> FormatReader:
    size = file.max_size_bytes if size_bytes is None else size_bytes
    reader = FormatReader("model.gguf", size, FormatLimits(gguf=limits))
    reader.feed(file.header)
    return reader


def is_deadly(row: Row) -> bool:
    return row.id in DEADLY or f"{row.id} {row.field}" in DEADLY


@pytest.mark.parametrize("row", BAD, ids=[f"{row.id}-{row.field}" for row in BAD])
def test_a_policy_becomes_a_warning_and_nothing_else_does(row: Row) -> None:
    limits = GgufLimits(
        **{name: getattr(row.limits, name) for name in GgufLimits.__slots__ if name != "rules_as_warnings"},
        rules_as_warnings=LIFTED.rules_as_warnings,
    )
    size_bytes = row.size_bytes
    if row.rule == "T6":
        # The file ends where the tensor that is out of place does.
        last = row.bad.tensors[-1]
        size_bytes = row.bad.data_offset + max(128, (last.offset or 0) + 128)
    reader = read(row.bad, limits, size_bytes)
    if row.rule not in POLICIES or is_deadly(row):
        assert reader.error is not None
        assert reader.error.metadata["rule"] == row.rule
        assert "RULES_AS_WARNINGS" not in reader.error.message
        return
    assert reader.error is None, reader.error
    assert reader.inspection is not None
    refused = read(row.bad, row.limits, size_bytes).error
    assert refused is not None
    assert "INGEST_RULES_AS_WARNINGS" in refused.message
    # The same words as of the refusal, with the rule's id.
    (warning,) = [words for words in reader.inspection.warnings if f"(rule {row.rule}" in words]
    assert refused.message.startswith(warning)


def test_only_what_is_named_is_lifted() -> None:
    file = G.but({"general.name": text("a\0b")}, extra=(counted(b"llama.block_count") + u32(0),))
    error = read(file, GgufLimits(rules_as_warnings=("K8",))).error
    assert error is not None
    assert error.metadata["rule"] == "C3"
    assert not error.more


def test_what_is_lifted_is_bounded() -> None:
    twice = tuple(counted(b"llama.block_count") + u32(1) for _ in range(50))
    inspection = read(G.but(extra=twice)).inspection
    assert inspection is not None
    told = [words for words in inspection.warnings if "K8" in words]
    assert len(told) == MAX_MORE_FAULTS + 1
    assert f"{50 - len(told)} more like these" in inspection.warnings


def test_a_tensor_out_of_place_must_still_lie_within_the_file() -> None:
    """Ollama before 0.17.1 read beyond its memory: CVE-2026-7482."""
    apart = G.but(tensors=(Tensor("t", (32,), 0), Tensor("u", (32,), 0, 4096)))
    error = read(apart, size_bytes=len(apart.header) + 1024).error
    assert error is not None
    assert error.metadata["rule"] == "S1"
    far = read(G.but(tensors=(Tensor("t", (32,), 0), Tensor("u", (32,), 0, 2**64 - 32)))).error
    assert far is not None
    assert far.metadata["rule"] == "T7"


def test_behind_a_tensor_of_an_unknown_type_the_next_must_lie_within_the_file() -> None:
    file = G.but(tensors=(Tensor("t", (32,), 99), Tensor("u", (32,), 0, 4096)))
    size_bytes = file.data_offset + 4096 + 128
    inspection = read(file, size_bytes=size_bytes).inspection
    assert inspection is not None
    # X5 goes by it: Ollama cannot quantize what it does not know.
    assert {share["type"] for share in inspection.facts["quantization_mix"]} == {"F32", "type 99"}
    assert inspection.facts["tensor_count"] == 2
    error = read(file, size_bytes=size_bytes - 1).error
    assert error is not None
    assert error.metadata["rule"] == "S1"


def test_a_file_of_an_unknown_kind_keeps_the_rules_of_a_model() -> None:
    """llama.cpp does not look at `general.type`: it would die of this one's as of any model's."""
    odd = G.but({"general.type": text("odd"), "llama.attention.layer_norm_rms_epsilon": number(F32, -1)})
    error = read(odd).error
    assert error is not None
    assert error.metadata["rule"] == "M7"
    inspection = read(odd.but({"llama.attention.layer_norm_rms_epsilon": None})).inspection
    assert inspection is not None
    assert inspection.facts["type"] == "model"


def test_a_shards_place_that_cannot_be_is_no_fact() -> None:
    inspection = read(G.but({**SHARD, "split.no": number(2, 7)})).inspection
    assert inspection is not None
    assert "split" not in inspection.facts


def test_gemma2_divides_by_its_heads() -> None:
    own = {key.replace("llama.", "gemma2.", 1): value for key, value in G.pairs.items()}
    file = Gguf(pairs={**own, "general.architecture": text("gemma2")})
    for heads in (None, u32(0)):
        error = read(file.but({"gemma2.attention.head_count": heads})).error
        assert error is not None
        assert error.metadata["rule"] == "M3"


def test_of_every_other_rule_it_is_said_why_it_stays() -> None:
    for rule in sorted(in_code()):
        assert (why_no_policy(rule) is None) == (rule in POLICIES)
        if rule not in POLICIES:
            with pytest.raises(ValueError, match=f"it must not name {rule}: "):
                policies_named(rule)


def test_the_page_names_the_setting_in_the_row_of_each_policy() -> None:
    table = _DOCS.read_text(encoding="utf-8").partition("| Rule | What happens |")[2].partition("\n\n")[0]
    named: set[str] = set()
    for line in table.splitlines():
        rules, _, words = line.strip("| ").partition("|")
        if "`INGEST_RULES_AS_WARNINGS`" in words:
            named |= set(re.findall(r"[A-Z]\d", rules))
    assert named == POLICIES
