"""What may differ between llama.cpp and us, and why; everything else fails the test."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from ingest_service.formats.policies import POLICIES
from tests.formats.differential.oracle import Verdict
from tests.formats.differential.ours import Ours

DIES = "a released llama.cpp or Ollama dies of it"
REFUSES = "another part of llama.cpp, or Ollama, refuses it"
SETTING = "a policy, which a setting of its own lifts"
POLICY = "a policy, which INGEST_RULES_AS_WARNINGS lifts"
LIMIT = "a bound on what a header may cost"

#: Rule -> why it refuses what llama.cpp takes here. docs/formats.md names the programs and the settings.
JUSTIFIED = {
    "H5": LIMIT, "H6": LIMIT, "H7": LIMIT, "K4": LIMIT, "K6": LIMIT, "M1": LIMIT, "V7": LIMIT,
    **dict.fromkeys(sorted(POLICIES - {"T1"}), POLICY),
    # Ollama groups shards by each one's own `split.count` and `split.no`.
    "X2": REFUSES, "names": REFUSES,
    # `llama_model_load_from_file` says that the data are not within the file.
    "S1": REFUSES,
    "S2": SETTING, "C1": SETTING, "C6": SETTING,
    "K1": DIES, "T1": DIES, "T4": DIES, "A2": DIES, "C2": DIES,
    "A5": DIES, "T9": DIES, "M4": DIES, "M6": DIES, "M7": DIES, "M8": DIES, "M9": DIES,
    "V1": DIES, "V2": DIES, "V3": DIES, "V4": DIES, "V5": DIES, "V6": DIES,
    # clip asks for u32 and aborts; a list of one is a number to it, and not every kind reads every key.
    "C5": DIES,
}  # fmt: skip
#: What kills llama.cpp and is accepted: a pattern of its last words and of what was changed, and why.
NOT_CAUGHT = (
    # C7 knows ten kinds of projector, and of some of them not the last layers.
    (r"^projector.*(ggml\.c|mtmd/models/\S*\.cpp):\d+: GGML_ASSERT", "a tensor that does not fit"),
    (r"^projector.*(SIGSEGV|SIGFPE)", "a tensor that is not there"),
    (r"^projector.*SIGPROF", "clip tries itself with an image of the largest size"),
    (r"^(load|context|decode): .*src/(models/|llama-model\.cpp).*GGML_ASSERT", "its own assertion"),
)  # fmt: skip
#: Rules that `gguf_init_from_file` does not look at: it reads the structure only.
_BEYOND_STRUCTURE = re.compile(r"[MVCX]\d")


@dataclass
class Tally:
    """Counts, and one example of each kind of difference."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    by_rule: Counter[str] = field(default_factory=Counter)
    lifted: Counter[str] = field(default_factory=Counter)
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

    def add_lifted(self, what: str, ours: Ours, theirs: Verdict) -> None:
        """A file that a policy refuses, judged with all policies lifted."""
        if theirs.outcome == "slow":
            return
        if self.kind == "header" and _BEYOND_STRUCTURE.fullmatch(ours.rule):
            self.counts["policies lifted: refused for what is not structure"] += 1
        elif ours.rule and theirs.outcome == "taken":
            self.counts["policies lifted: refused by another rule, taken by llama.cpp"] += 1
            self.lifted[ours.rule] += 1
            if POLICY in JUSTIFIED.get(ours.rule, ""):
                self.wrong.append(f"lifted, and refused by {ours.rule}: {what}: {ours.message}")
        elif ours.rule:
            self.counts["policies lifted: refused by another rule, and by llama.cpp"] += 1
        elif theirs.is_deadly:
            self._add_death(f"policies lifted: {what}", theirs)
        else:
            self.counts[f"policies lifted: taken, by llama.cpp {theirs.outcome}"] += 1

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
        told = f"{words} | {what}"
        reason = next((why for pattern, why in NOT_CAUGHT if re.search(pattern, told, re.DOTALL)), "")
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
        lines += [
            f"  only we refuse with the policies lifted, {rule}: {count} ({JUSTIFIED.get(rule, 'UNKNOWN')})"
            for rule, count in self.lifted.most_common()
        ]
        lines += [f"  llama.cpp dies: {count} x {words}" for words, count in self.deaths.most_common(20)]
        lines += [f"  only llama.cpp refuses: {count} x {words}" for words, count in self.lax.most_common(20)]
        return "\n".join(lines)


def _without_numbers(words: str) -> str:
    """The same for the same fault: paths, numbers and names of layers differ."""
    last = re.sub(r"'[^']*'|\S*/\S*", "..", words)
    last = last.replace("; llama_model_load_from_file_impl: failed to load model", "")
    return re.sub(r"\d+", "N", last)[-150:].strip()
