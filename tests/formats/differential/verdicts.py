"""What may differ between llama.cpp and us, and why; everything else fails the test."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from tests.formats.differential.oracle import Verdict
from tests.formats.differential.ours import Ours

DIES = "a released llama.cpp or Ollama dies of it"
REFUSES = "another part of llama.cpp, or Ollama, refuses it"
SETTING = "a policy, which a setting lifts"
LIMIT = "a bound on what a header may cost"
OPEN = "NOT JUSTIFIED YET: to be accepted, or to be given its reason in docs/formats.md"

#: Rule -> why it refuses what llama.cpp takes here. The rules' own page is docs/formats.md.
JUSTIFIED = {
    # llama.cpp reads as many as there is memory for.
    "H5": LIMIT, "H7": LIMIT, "K4": LIMIT, "K6": LIMIT, "M1": LIMIT, "V7": LIMIT,
    # The loader knows no model without an architecture, and takes no adapter or dataset as one.
    "A1": REFUSES, "A3": REFUSES, "H6": REFUSES,
    # Ollama groups shards by each one's own `split.count` and `split.no`.
    "A4": REFUSES, "X2": REFUSES, "names": REFUSES,
    # `llama_model_load_from_file` says that the data are not within the file.
    "S1": REFUSES,
    "S2": SETTING, "C1": SETTING,
    # clip asks for u32 and aborts.
    # A list of one is a number to it, and some keys it reads for some kinds only.
    "C5": DIES, "C6": DIES,
    "K1": OPEN, "K2": OPEN, "K7": OPEN, "T1": OPEN, "T4": OPEN, "A2": OPEN, "C2": OPEN, "C3": OPEN,
    "M2": OPEN, "M3": OPEN, "M4": OPEN, "M5": OPEN, "M6": OPEN,
    "V1": OPEN, "V2": OPEN, "V3": OPEN, "V4": OPEN, "V5": OPEN, "V6": OPEN,
}  # fmt: skip
#: What kills llama.cpp and is accepted: a pattern of its last words, and why it is not refused.
NOT_CAUGHT = (
    # Which shapes the tensors of each kind of projector have is clip's knowledge alone.
    (r"^projector.*(ggml\.c|mtmd/models/\S*\.cpp):\d+: GGML_ASSERT", "a tensor that does not fit"),
    (r"^projector.*(SIGSEGV|SIGFPE)", "a tensor that is not there"),
    (r"^projector.*SIGPROF", "clip tries itself with an image of the largest size"),
    (r"TENSOR_ALIGNMENT", OPEN),
    (r"^(context|decode|load).*(SIG|ASSERT)", OPEN),
)  # fmt: skip
#: Rules that `gguf_init_from_file` does not look at: it reads the structure only.
_BEYOND_STRUCTURE = re.compile(r"[MVCX]\d")


@dataclass
class Tally:
    """Counts, and one example of each kind of difference."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    by_rule: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    lax: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, what: str, ours: Ours, theirs: Verdict) -> None:
        """One file."""
        self.counts["tried"] += 1
        if theirs.outcome == "slow":
            self.counts["no answer in time"] += 1
            return
        if ours.rule and theirs.outcome == "taken":
            self._add_refusal(what, ours)
        elif not ours.rule and theirs.is_deadly:
            self._add_death(what, theirs)
        elif not ours.rule and theirs.outcome == "refused":
            self.counts["only llama.cpp refuses"] += 1
            self.lax[_without_numbers(theirs.words)] += 1
        else:
            self.counts["agreed"] += 1
            self.counts[f"agreed, {theirs.outcome}"] += 1

    def _add_refusal(self, what: str, ours: Ours) -> None:
        if self.kind == "header" and _BEYOND_STRUCTURE.fullmatch(ours.rule):
            self.counts["refused for what is not structure"] += 1
            return
        self.counts["only we refuse"] += 1
        self.by_rule[ours.rule] += 1
        if ours.rule not in JUSTIFIED:
            self.wrong.append(f"refused by {ours.rule}, taken by llama.cpp: {what}: {ours.message}")

    def _add_death(self, what: str, theirs: Verdict) -> None:
        self.counts["accepted, and llama.cpp dies"] += 1
        words = f"{theirs.stage}: {theirs.words}"
        reason = next((why for pattern, why in NOT_CAUGHT if re.search(pattern, words, re.DOTALL)), "")
        self.deaths[f"{reason or 'UNKNOWN'}: {_without_numbers(words)}"] += 1
        if not reason:
            self.wrong.append(f"accepted, and llama.cpp dies: {what}: {words}")

    def report(self) -> str:
        """For a person, of bounded length."""
        lines = [f"{self.kind}: " + ", ".join(f"{name} {count}" for name, count in self.counts.most_common())]
        lines += [
            f"  only we refuse, {rule}: {count} ({JUSTIFIED.get(rule, 'UNKNOWN')})"
            for rule, count in self.by_rule.most_common()
        ]
        lines += [f"  llama.cpp dies: {count} x {words}" for words, count in self.deaths.most_common(20)]
        lines += [f"  only llama.cpp refuses: {count} x {words}" for words, count in self.lax.most_common(20)]
        return "\n".join(lines)


def _without_numbers(words: str) -> str:
    """The same for the same fault: paths, numbers and names of layers differ."""
    last = re.sub(r"'[^']*'|\S*/\S*", "..", words)
    last = last.replace("; llama_model_load_from_file_impl: failed to load model", "")
    return re.sub(r"\d+", "N", last)[-150:].strip()
