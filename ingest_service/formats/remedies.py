"""What to do about a file that breaks a rule, by the rule's id or else by its letter."""

from __future__ import annotations

_AGAIN = "The file is damaged or its writer is faulty: download it again, or convert the model anew."
_CONVERT = "Convert the model anew with a current llama.cpp."
_METADATA = "Correct the key (`gguf-set-metadata` of PyPI's gguf package), or convert the model anew."
_LIMIT = "If the model is sound, ask the operator to raise the limit."
#: Said after the remedy where the rule is a policy.
LIFTING = "Or ask the operator to name the rule in INGEST_RULES_AS_WARNINGS."
_CONFIG = "Correct the file, or convert the model to GGUF first."

_REMEDIES = {
    "B1": _LIMIT,
    "H1": "Check that you push the right file and that its download is complete.",
    "H2": _CONVERT,
    "H3": _CONVERT,
    "H4": "Convert it with `gguf-convert-endian` of PyPI's gguf package.",
    "H6": "Push the whole model, or raise the limit if it has more tensors.",
    "H7": _LIMIT,
    "K": _AGAIN,
    "H": _AGAIN,
    "K8": "Write the key once: convert the model anew.",
    "A": _METADATA,
    "A3": "Push a model, an adapter or a projector.",
    "A4": "Split the model anew with llama-gguf-split, or merge it.",
    "T": _AGAIN,
    "T1": "Rename the tensor: convert the model anew.",
    "T2": "Write each tensor once: convert the model anew.",
    "T5": "Quantize the model anew with a current llama.cpp.",
    "T9": "Quantize the model anew with a current llama.cpp.",
    "S1": "Send the whole file: download it again and compare its size and sha256 with the publisher's.",
    "S2": "Remove what follows the tensors, or set INGEST_ALLOW_TRAILING_BYTES.",
    "M": _METADATA,
    "V": "Correct the tokenizer's keys: convert the model anew with its own tokenizer files.",
    "C1": "Correct the template, or set INGEST_ALLOW_UNSAFE_TEMPLATES.",
    "C6": "Simplify the template, or set INGEST_ALLOW_UNSAFE_TEMPLATES.",
    "C2": "Shorten the templates (of a GGUF with `gguf-new-metadata` of PyPI's gguf package).",
    "C3": "Remove the NUL (`gguf-new-metadata` of PyPI's gguf package).",
    "C5": _METADATA,
    "C7": "Convert the projector anew with a current llama.cpp, from the model that it belongs to.",
    "F": "Save the set anew with the safetensors library, or convert the model to GGUF.",
    "J": _CONFIG,
    "P": "Take the tokenizer from the publisher again, or convert the model to GGUF.",
}


def remedy_for(rule: str) -> str:
    """One sentence for whoever has the file."""
    return _REMEDIES.get(rule) or _REMEDIES[rule[0]]
