"""Resource names and page tokens of the API."""

from __future__ import annotations

import base64
import re

from ingest_service.vocabulary.errors import ArgumentInvalid, FileNotFound, IngestNotFound, NameInvalid

_ID = re.compile(r"[0-9a-z]{1,64}")
_MAX_PAGE = 500
_DEFAULT_PAGE = 50
_MAX_PREFIX_CHARACTERS = 256


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
    """The model's name in `models/{model name}`. Raises NameInvalid."""
    collection, _, model = name.partition("/")
    if collection != "models" or not model:
        raise NameInvalid("A model's resource name is `models/{model name}`.", field="name")
    return model


def parse_name_prefix(prefix: str) -> str:
    """The prefix if a name could start with it, or nearly so; what else it holds is not for a database."""
    if len(prefix) > _MAX_PREFIX_CHARACTERS or not prefix.isprintable():
        raise ArgumentInvalid(
            f"A name_prefix has at most {_MAX_PREFIX_CHARACTERS} printable characters.", field="name_prefix"
        )
    return prefix


def page_limit(page_size: int) -> int:
    """How many rows a page has."""
    if page_size < 0:
        raise ArgumentInvalid("A page_size is not negative.", field="page_size")
    return min(page_size or _DEFAULT_PAGE, _MAX_PAGE)


class PageTokens:
    """Tokens of one list's pages. Opaque to clients; one list does not take another's."""

    def __init__(self, of: str, position: str) -> None:
        """`position` is the regular expression of what its tokens hold."""
        self._of = of
        self._position = re.compile(position)

    def write(self, position: str | int | None) -> str:
        """The token; "" at the end."""
        if position is None:
            return ""
        return base64.urlsafe_b64encode(f"{self._of}:{position}".encode()).decode().rstrip("=")

    def read(self, token: str) -> str | None:
        """The position; None for the first page. Raises ArgumentInvalid if the token was not written here."""
        if not token:
            return None
        try:
            decoded = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode("ascii")
        except ValueError:
            decoded = ""
        position = decoded.partition(":")[2]
        # Written anew it must be the same, list and all: base64 has many spellings, and Python reads over
        # what is none.
        if not self._position.fullmatch(position) or self.write(position) != token:
            raise ArgumentInvalid("This page_token was not issued here.", field="page_token")
        return position


MODEL_PAGES = PageTokens("models", r"[a-z0-9_./:-]{1,512}")
INGEST_PAGES = PageTokens("ingests", r"[0-9]{1,18}")
