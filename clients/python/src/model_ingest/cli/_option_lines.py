"""Create options, in lines for a person. Everything here returns printable text."""

from __future__ import annotations

import json

from google.protobuf.json_format import MessageToDict

from model_ingest._clean import printable
from model_ingest.v1.resources_pb2 import CreateOptions

_WORDS = ("from", "renderer", "parser", "requires", "quantize", "draft_quantize")
_TEXTS = ("system", "template")
_SHOWN_CHARACTERS = 160
#: Of licenses and messages so many are shown; there may be a thousand.
_SHOWN_ENTRIES = 5


def option_lines(options: CreateOptions) -> list[str]:
    """What the model is created with, beside its files; nothing where it is created as it is."""
    said = [(name, getattr(options, name)) for name in (*_WORDS, *_TEXTS) if getattr(options, name)]
    for name, value in sorted(MessageToDict(options.parameters).items()):
        whole = isinstance(value, float) and value.is_integer()
        said.append((name, json.dumps(int(value) if whole else value, ensure_ascii=False)))
    said += [("license", text) for text in options.licenses[:_SHOWN_ENTRIES]]
    said += [(one.role, one.content) for one in options.messages[:_SHOWN_ENTRIES]]
    lines = [
        f"  {printable(name, 40):<17} {printable(text, _SHOWN_CHARACTERS)}".rstrip() for name, text in said
    ]
    for name, entries in (("licenses", options.licenses), ("messages", options.messages)):
        if len(entries) > _SHOWN_ENTRIES:
            lines.append(f"  and {len(entries) - _SHOWN_ENTRIES} more {name}")
    return lines
