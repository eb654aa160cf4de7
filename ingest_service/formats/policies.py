"""The rules that are policies: INGEST_RULES_AS_WARNINGS makes each of them a warning.

A policy refuses what llama.cpp or Ollama refuses in words, or reads in two ways. Every other rule protects a
released program from its death or bounds what a file may cost, or the reader cannot go on without it.
Where a rule is a policy in some cases only (T1, T5, M2, M3), only those become warnings: docs/formats.md.
"""

from __future__ import annotations

POLICIES = frozenset({"A1", "A3", "A4", "C3", "K2", "K8", "M2", "M3", "M5", "T1", "T2", "T5", "T6"})

_DEADLY = "a released llama.cpp or Ollama crashes, aborts or hangs of such a file"
_COST = "it bounds the memory and time that a file may cost"
_ENDS = "nothing of the file can be read on after it"
_SET = "files beside a GGUF have rules of their own"
#: Why a rule is none, by its id or else by its letter.
_NO_POLICY = {
    "B": _COST, "H": "no program reads such a file",
    "H5": _COST, "H6": _COST, "H7": _COST, "K4": _COST, "K6": _COST, "V7": _COST, "C2": _COST,
    "K1": _ENDS, "K3": _ENDS, "K5": _ENDS, "T3": _ENDS,
    "A2": _DEADLY, "A5": _DEADLY, "T4": _DEADLY, "T7": _DEADLY, "T8": _DEADLY, "T9": _DEADLY, "S1": _DEADLY,
    "M": _DEADLY, "V": _DEADLY, "C5": _DEADLY, "C7": _DEADLY,
    "S2": "INGEST_ALLOW_TRAILING_BYTES lifts it",
    "C1": "INGEST_ALLOW_UNSAFE_TEMPLATES lifts it", "C6": "INGEST_ALLOW_UNSAFE_TEMPLATES lifts it",
    "F": _SET, "J": _SET, "P": _SET,
    "X": "it is about what the request says the file is: correct the request",
}  # fmt: skip
#: The rules of each letter, for telling a name that is none.
_LAST = {
    "B": 1,
    "H": 7,
    "K": 8,
    "A": 5,
    "T": 9,
    "S": 2,
    "M": 9,
    "V": 7,
    "C": 7,
    "F": 9,
    "J": 8,
    "P": 4,
    "X": 5,
}


def why_no_policy(rule: str) -> str | None:
    """Why the rule cannot become a warning; None if it can. Raises ValueError for what is no rule."""
    letter, number = rule[:1], rule[1:]
    is_rule = len(number) == 1 and number.isascii() and number.isdigit() and letter in _LAST
    if not is_rule or not 1 <= int(number) <= _LAST[letter]:
        raise ValueError(f"it must name rules of docs/formats.md, such as K8, not {rule[:20]!r}")
    if rule in POLICIES:
        return None
    return _NO_POLICY.get(rule) or _NO_POLICY.get(letter) or "the rule refuses nothing"


def policies_named(text: str) -> tuple[str, ...]:
    """The ids in a comma-separated list, sorted. Raises ValueError for one that cannot be taken."""
    rules = sorted({part.strip().upper() for part in text.split(",")} - {""})
    for rule in rules:
        why = why_no_policy(rule)
        if why is not None:
            raise ValueError(f"it must not name {rule}: {why}; it may name {', '.join(sorted(POLICIES))}")
    return tuple(rules)
