"""llama.cpp's own functions, out of the library that the `xllamacpp` wheel carries, called with ctypes.

The library is loaded as it is: Python's part of it is not used. Structures whose fields we never set are
handed on as opaque bytes that are larger than the structure: on Linux x86-64 they are passed on the stack,
where more does no harm.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = "xllamacpp"
_OPAQUE_BYTES = 512
_WARNING = 3
_TOKENS = 2

_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_Abort = ctypes.CFUNCTYPE(None, ctypes.c_char_p)
_SetTensor = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


class _Opaque(ctypes.Structure):
    """Parameters as llama.cpp's own function fills them in."""

    _fields_ = [("data", ctypes.c_char * _OPAQUE_BYTES)]


class _GgufParameters(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p)]


class _Batch(ctypes.Structure):
    """llama_batch: a count and six pointers."""

    _fields_ = [("count", ctypes.c_int32), ("pointers", ctypes.c_void_p * 6)]


def version() -> str:
    """The wheel's version; its last part is llama.cpp's build number."""
    return importlib.metadata.version(PACKAGE)


def why_not() -> str:
    """Why llama.cpp cannot be asked here; "" if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"llama.cpp is asked on Linux x86-64 only, not on {sys.platform} {platform.machine()}"
    try:
        library_path()
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        return f"the wheel {PACKAGE} is not installed"
    return ""


def library_path() -> Path:
    """The shared library of the wheel."""
    files = importlib.metadata.files(PACKAGE) or []
    return Path(str(next(file for file in files if file.suffix == ".so").locate()))


class Llama:
    """The library, loaded into this process; `say` gets its warnings and errors, `stage` what comes next."""

    def __init__(self, say: Callable[[str], None], stage: Callable[[str], None]) -> None:
        self._say = say
        self._stage = stage
        # The wheel's module needs no interpreter of its own for these functions: it is found in ours.
        self._lib = ctypes.CDLL(str(library_path()))
        self._last = ""
        self._kept: list[Any] = [
            _Log(self._logged),
            _Abort(self._aborted),
            _SetTensor(lambda tensor, data: None),
        ]
        for name in ("llama_log_set", "ggml_log_set", "mtmd_log_set"):
            getattr(self._lib, name)(self._kept[0], None)
        self._lib.ggml_set_abort_callback(self._kept[1])
        self._declare()
        self._lib.llama_backend_init()

    def _declare(self) -> None:
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("gguf_init_from_file", pointer, [text, _GgufParameters]),
            ("gguf_free", None, [pointer]),
            ("gguf_get_n_tensors", ctypes.c_int64, [pointer]),
            ("llama_model_default_params", _Opaque, []),
            ("llama_context_default_params", _Opaque, []),
            ("mtmd_context_params_default", _Opaque, []),
            ("llama_model_load_from_file", pointer, [text, _Opaque]),
            ("llama_model_load_from_splits", pointer, [ctypes.POINTER(text), ctypes.c_size_t, _Opaque]),
            ("llama_model_init_from_user", pointer, [pointer, _SetTensor, pointer, _Opaque]),
            ("llama_model_save_to_file", None, [pointer, text]),
            ("llama_model_free", None, [pointer]),
            ("llama_init_from_model", pointer, [pointer, _Opaque]),
            ("llama_free", None, [pointer]),
            ("llama_batch_get_one", _Batch, [pointer, ctypes.c_int32]),
            ("llama_decode", ctypes.c_int32, [pointer, _Batch]),
            ("mtmd_init_from_file", pointer, [text, pointer, _Opaque]),
            ("mtmd_free", None, [pointer]),
        ):
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments

    def _logged(self, level: int, text: bytes, _: Any) -> None:
        words = text.decode("utf-8", "replace").strip()
        # Level 5 goes on with the line before it.
        if words and _WARNING <= level <= 5:
            self._say(words)

    def _aborted(self, text: bytes) -> None:
        self._say(text.decode("utf-8", "replace").strip())

    def header(self, path: str) -> bool:
        """Whether `gguf_init_from_file` takes the header."""
        self._stage("header")
        handle = self._lib.gguf_init_from_file(path.encode(), _GgufParameters(True, None))
        if handle:
            self._lib.gguf_free(handle)
        return bool(handle)

    def model(self, path: str, *, run: bool = True) -> bool:
        """Whether the model is loaded; then a context is made for it and a few tokens are decoded."""
        self._stage("load")
        model = self._lib.llama_model_load_from_file(path.encode(), self._lib.llama_model_default_params())
        return self._used(model, run=run)

    def splits(self, paths: list[str]) -> bool:
        """Whether a model is loaded from these shards."""
        self._stage("load")
        listed = (ctypes.c_char_p * len(paths))(*[path.encode() for path in paths])
        parameters = self._lib.llama_model_default_params()
        return self._used(self._lib.llama_model_load_from_splits(listed, len(paths), parameters), run=False)

    def make(self, path: str, into: str) -> bool:
        """Writes the model that this metadata describes, with all tensors that it needs."""
        self._stage("load")
        metadata = self._lib.gguf_init_from_file(path.encode(), _GgufParameters(True, None))
        if not metadata:
            return False
        parameters = self._lib.llama_model_default_params()
        model = self._lib.llama_model_init_from_user(metadata, self._kept[2], None, parameters)
        if model:
            self._stage("save")
            self._lib.llama_model_save_to_file(model, into.encode())
            self._lib.llama_model_free(model)
        self._lib.gguf_free(metadata)
        return bool(model)

    def _used(self, model: int | None, *, run: bool) -> bool:
        if not model:
            return False
        if run:
            self._stage("context")
            context = self._lib.llama_init_from_model(model, self._lib.llama_context_default_params())
            if context:
                self._stage("decode")
                tokens = (ctypes.c_int32 * _TOKENS)(*range(_TOKENS))
                self._lib.llama_decode(context, self._lib.llama_batch_get_one(tokens, _TOKENS))
                self._lib.llama_free(context)
            else:
                self._lib.llama_model_free(model)
                return False
        self._lib.llama_model_free(model)
        return True

    def projector(self, path: str, text_model: str) -> bool:
        """Whether the projector is loaded, beside a text model."""
        self._stage("text model")
        model = self._lib.llama_model_load_from_file(
            text_model.encode(), self._lib.llama_model_default_params()
        )
        assert model, "the text model cannot be loaded"
        self._stage("projector")
        context = self._lib.mtmd_init_from_file(path.encode(), model, self._lib.mtmd_context_params_default())
        if context:
            self._lib.mtmd_free(context)
        self._lib.llama_model_free(model)
        return bool(context)
