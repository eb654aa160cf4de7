"""Resource names and page tokens of the API."""

from __future__ import annotations

import base64
import binascii
import re

from ingest_service.vocabulary.errors import ArgumentInvalid, FileNotFound, IngestNotFound

_ID = re.compile(r"[0-9a-z]{1,64}")
_MAX_PAGE = 500
_DEFAULT_PAGE = 50


def ingest_name(ingest_id: str) -> str:
    """`ingests/{id}`."""
    return f"ingests/{ingest_id}"


def file_name(ingest_id: str, name: str) -> str:
    """`ingests/{id}/files/{file_name}`."""
    return f"ingests/{ingest_id}/files/{name}"


def parse_ingest_name(name: str) -> str:
    """The id in `ingests/{id}`. Raises IngestNotFound: what has no name of that form does not exist."""
    collection, _, ingest_id = name.partition("/")
    if collection != "ingests" or not _ID.fullmatch(ingest_id):
        raise IngestNotFound("There is no such ingest; its name is `ingests/{id}`.")
    return ingest_id


def parse_file_name(name: str) -> tuple[str, str]:
    """Ingest's id and file's name in `ingests/{id}/files/{file_name}`."""
    parts = name.split("/")
    if len(parts) != 4 or parts[2] != "files" or not parts[3]:
        raise FileNotFound("There is no such file; its name is `ingests/{id}/files/{file_name}`.")
    return parse_ingest_name("/".join(parts[:2])), parts[3]


def parse_model_resource(name: str) -> str:
    """The model's name in `models/{model name}`."""
    collection, _, model = name.partition("/")
    if collection != "models" or not model:
        raise ArgumentInvalid("A model's resource name is `models/{model name}`.", field="name")
    return model


def page_limit(page_size: int) -> int:
    """How many rows a page has."""
    if page_size < 0:
        raise ArgumentInvalid("A page_size is not negative.", field="page_size")
    return min(page_size or _DEFAULT_PAGE, _MAX_PAGE)


def page_token(position: str | int | None) -> str:
    """Opaque to clients; "" at the end."""
    if position is None:
        return ""
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def parse_page_token(token: str) -> str | None:
    """The position in a token. Raises ArgumentInvalid if it is none of ours."""
    if not token:
        return None
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise ArgumentInvalid("This page_token was not issued here.", field="page_token") from None


def parse_page_number(token: str) -> int | None:
    """The same, for pages that go by number."""
    position = parse_page_token(token)
    if position is None:
        return None
    if not position.isdecimal() or len(position) > 18:
        raise ArgumentInvalid("This page_token was not issued here.", field="page_token")
    return int(position)
