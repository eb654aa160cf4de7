"""Client of the model ingest service.

    async with AsyncClient("127.0.0.1:50051") as client:
        ingest = await client.push("model.gguf", name="llama3:8b")

`Client` is the same without `async`. Errors: `IngestError` and its tree (`help(model_ingest._errors)`
draws it). Everything that is public is here; the modules with an underscore may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_ingest._public import *  # noqa: F403 (for type checkers alone)
    from model_ingest._public import __all__ as __all__


def __getattr__(name: str) -> object:
    """Imports the client with the first use of a name: the command begins before that, so that Ctrl-C ends it
    quietly while all of it is still being imported."""
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public = importlib.import_module("model_ingest._public")
    if name in public.__all__ or name == "__all__":
        value: object = getattr(public, name)
    elif name in globals():
        # A module of ours, which is an attribute once it is imported.
        return globals()[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("model_ingest._public").__all__})
