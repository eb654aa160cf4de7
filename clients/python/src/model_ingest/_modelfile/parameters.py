"""The parameters of Ollama and their types: `api.Options` of versions 0.24.0 to 0.33.0."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final

from google.protobuf.struct_pb2 import Struct

from model_ingest._clean import printable
from model_ingest._modelfile.float32 import parse_float32
from model_ingest._modelfile.values import parse_bool, parse_int

_WHOLE: Final = "a whole number of at most 64 bits, in decimal digits"
_FRACTION: Final = "a number, e.g. 0.7"
_TRUTH: Final = "true or false"
_Reader = tuple[Callable[[str], float | bool], str]

# `draft_num_predict` came with 0.30.0. Which of them a target knows is for the service to say.
_READERS: Final[Mapping[str, _Reader]] = {
    **dict.fromkeys(
        (
            "num_ctx",
            "num_batch",
            "num_gpu",
            "main_gpu",
            "num_thread",
            "draft_num_predict",
            "num_keep",
            "seed",
            "num_predict",
            "top_k",
            "repeat_last_n",
        ),
        (parse_int, _WHOLE),
    ),
    **dict.fromkeys(
        (
            "top_p",
            "min_p",
            "typical_p",
            "temperature",
            "repeat_penalty",
            "presence_penalty",
            "frequency_penalty",
        ),
        (parse_float32, _FRACTION),
    ),
    "use_mmap": (parse_bool, _TRUTH),
}
_NAMES: Final = sorted([*_READERS, "stop"])

#: Ollama prints a warning for these and goes on without them, whatever their value is.
DEPRECATED: Final = frozenset(
    {
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
    }
)


def set_parameter(parameters: Struct, name: str, text: str) -> None:
    """Takes one PARAMETER over: the last of a name counts, but each `stop` is added to the list.

    Raises ValueError with words that say what is wrong and what to do.
    """
    if name == "stop":
        if name not in parameters:
            parameters.get_or_create_list(name)
        parameters.get_or_create_list(name).append(text)
        return
    reader = _READERS.get(name)
    if reader is None:
        raise ValueError(_unknown(name))
    parse, form = reader
    try:
        parameters[name] = parse(text)
    except ValueError:
        raise ValueError(f"the parameter {name} cannot be `{printable(text, 40)}`; write {form}") from None


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name[:64].lower(), _NAMES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(_NAMES)}"
    return f"there is no parameter {printable(name, 40)}; {hint}"
