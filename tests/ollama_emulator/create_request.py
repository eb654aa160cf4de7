"""What `POST /api/create` refuses before its worker starts (contract sections 3.1 and 3.2)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from . import names
from .blobs import Blobs, InvalidDigest
from .eras import Era, Version


class APIError(Exception):
    """`{"error": ..}` with a status; None is Go's "no status given", sent as 500."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


_GO = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
_CREATE = {
    "model": str, "name": str, "from": str, "quantize": str, "quantization": str,
    "template": str, "system": str, "stream": bool, "files": dict, "adapters": dict,
    "draft_files": dict, "draft_quantize": str, "parameters": dict, "messages": list,
    "renderer": str, "parser": str, "requires": str, "info": dict, "remote_host": str,
}  # fmt: skip
_WANTED = {str: "string", bool: "bool", dict: "map[string]string", list: "[]api.Message"}


def decode(raw: bytes, struct: str, fields: dict[str, type]) -> dict[str, Any]:
    """Go's JSON decoder, near enough: first value only, unknown fields and nulls ignored."""
    text = raw.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise APIError("missing request body", 400)
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg:
            raise APIError("unexpected EOF", 400) from None
        char = text[error.pos]
        reason = f"invalid character '{char}' looking for beginning of value"
        raise APIError(reason, 400) from None
    if not isinstance(value, dict):
        if value is None:
            return {}
        kind = _GO[type(value)]
        raise APIError(f"json: cannot unmarshal {kind} into Go value of type api.{struct}", 400)
    out = {}
    for given, item in value.items():
        key = given.lower()  # Go matches field names without case
        wanted = fields.get(key)
        if wanted is not None and item is not None and type(item) is not wanted:
            where = f"Go struct field {struct}.{key} of type {_WANTED[wanted]}"
            raise APIError(f"json: cannot unmarshal {_GO[type(item)]} into {where}", 400)
        if item is not None:
            out[key] = item
    return out


@dataclass
class CreateRequest:
    """A create that passed the checks made before the first message."""

    name: names.Name
    data: dict[str, Any]
    stream: bool

    def text(self, *keys: str) -> str:
        return next((str(self.data[key]) for key in keys if self.data.get(key)), "")

    def mapping(self, key: str) -> dict[str, str] | None:
        return self.data.get(key)


def valid_path(path: str) -> bool:
    """`fs.ValidPath`: relative, no empty, `.` or `..` element."""
    return path == "." or all(part not in ("", ".", "..") for part in path.split("/"))


def check(raw: bytes, version: Version, blobs: Blobs) -> CreateRequest:
    era = version.era
    known = {field: kind for field, kind in _CREATE.items() if not version.forgets(field)}
    decoded = decode(raw, "CreateRequest", known)
    data = {field: value for field, value in decoded.items() if not version.forgets(field)}
    for key in ("files", "draft_files"):
        for path, digest in data.get(key, {}).items():
            if not valid_path(path) or (era is Era.C and ("\\" in path or ":" in path)):
                raise APIError("file path must be relative", 400)
            _check_digest(digest, key)
    for digest in data.get("adapters", {}).values():
        _check_digest(digest, "adapters")
    if data.get("draft_quantize") and not data.get("draft_files"):
        raise APIError("--draft-quantize requires a DRAFT model", 400)
    name = names.parse(data.get("model") or data.get("name") or "")
    if not name.valid:
        raise APIError("invalid model name", 400)
    if era is Era.C:
        _check_newest(data, blobs)
    return CreateRequest(name, data, data.get("stream", True))


def _check_digest(digest: Any, key: str) -> None:
    if not isinstance(digest, str):
        kind = _GO.get(type(digest), "null")
        where = f"Go struct field CreateRequest.{key} of type string"
        raise APIError(f"json: cannot unmarshal {kind} into {where}", 400)
    if digest == "":
        raise APIError("invalid digest format", 400)


def _check_newest(data: dict[str, Any], blobs: Blobs) -> None:
    """Era C refuses up front what A and B find out while working."""
    if data.get("adapters"):
        raise APIError("LoRA adapters are no longer supported", 400)
    if "typical_p" in data.get("parameters", {}):
        raise APIError("parameter typical_p is no longer supported", 400)
    files = data.get("files") or {}
    if len(files) > 1024:
        raise APIError("too many files", 400)
    quantize = data.get("quantize") or data.get("quantization")
    if data.get("from") or not files:
        _check_no_quantize(data)
        return
    kinds = set()
    for path, digest in files.items():
        try:
            present = digest in blobs
        except InvalidDigest as error:
            raise APIError(str(error), 400) from None
        if path.endswith((".gguf", ".safetensors")):
            kinds.add(path.rpartition(".")[2])
        elif not present:
            raise APIError(f"blob not found for {path}", 400)
    if len(kinds) > 1:
        raise APIError(f"mixed model file types: {', '.join(sorted(kinds))}", 400)
    if kinds != {"safetensors"}:
        _check_no_quantize(data)
    if quantize and quantize.lower() not in ("int4", "int8", "nvfp4", "mxfp4", "mxfp8"):
        raise APIError(f"unsupported quantize type {quantize}", 400)


def _check_no_quantize(data: dict[str, Any]) -> None:
    if data.get("quantize") or data.get("quantization"):
        raise APIError(_ONLY_SAFETENSORS, 400)
    if data.get("draft_quantize"):
        raise APIError(_ONLY_SAFETENSORS_DRAFT, 400)


_ONLY_SAFETENSORS = (
    "create-time quantization is only supported for safetensors imports; "
    "quantize the GGUF with llama-quantize first"
)
_ONLY_SAFETENSORS_DRAFT = (
    "draft quantization during create is only supported for safetensors imports; "
    "quantize GGUF draft models with llama.cpp tools before importing"
)
