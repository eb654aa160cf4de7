"""One Ollama endpoint, by name, and what can go wrong with it."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ingest_service.vocabulary.reasons import Reason
from ingest_service.vocabulary.text import clean

#: Shorter header values say nothing, and may stand in any text.
_LEAST_SECRET = 4


@dataclass(frozen=True, slots=True)
class Target:
    """Where it is. `headers` go with every request (for a proxy in front of it)."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Its models directory as this process sees it, if they share a file system.
    models_dir: Path | None = None
    #: Certificates of those who may sign its own, beside the system's.
    ca: Path | None = None

    def secrets(self) -> list[str]:
        """What goes with every request and must not be told, the longest first."""
        parts = urlsplit(self.url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        values = [*self.headers.values(), parts.password or "", password]
        if not password:
            # A token is often given as the user.
            values += [parts.username or "", user]
        if user or password:
            # As it goes over the wire: Authorization: Basic.
            values.append(b64encode(f"{user}:{password}".encode()).decode())
        texts = {text for value in values for text in (value, value.rpartition(" ")[2])}
        texts |= {spelling for text in texts for spelling in _spellings(text)}
        return sorted((text for text in texts if len(text) >= _LEAST_SECRET), key=len, reverse=True)


def _spellings(text: str) -> tuple[str, ...]:
    """`text` as it stands in a URL, in JSON, in HTML and in Python's `repr` of bytes (h11's errors)."""
    return (
        quote(text, safe=""),
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        html.escape(text),
        repr(text.encode())[2:-1],
    )


def without(secrets: Iterable[str], text: str) -> str:
    """`text`, which a target or something before it may have said, with each secret hidden."""
    known = list(secrets)
    for secret in known:
        text = text.replace(secret, "***")
    # Whoever said it may have cut it off within a secret.
    for secret in known:
        for length in range(min(len(secret) - 1, len(text)), _LEAST_SECRET - 1, -1):
            if text.endswith(secret[:length]):
                return text[:-length] + "***"
    return text


class TargetError(Exception):
    """A step on a target failed. `words` is what it said, cleaned and capped at 1 KiB.

    TargetError
    ├── Unreachable      no answer, or one that a later try may better: tried again with backoff
    │   └── Resting      it did not answer others a moment ago, and was not asked again
    ├── Refused          a final no
    ├── BlobMissing      create did not find the blob: push it once more
    ├── NoSpace          the target's disk is full: tried again with backoff
    └── OutcomeUnknown   the answer to create was cut off: `show` settles it
    """

    reason = Reason.TARGET_REFUSED

    def __init__(self, words: str, *, reason: Reason | None = None) -> None:
        self._said = words
        self.words = clean(words)
        if reason is not None:
            self.reason = reason
        super().__init__(self.words)

    def hide(self, secrets: Iterable[str]) -> None:
        """A proxy may say what it was sent: that is for nobody else."""
        # Of all that was said, before it is cut: half a secret is one too.
        self.words = clean(without(secrets, self._said))
        self.args = (self.words,)


class Unreachable(TargetError):
    """No answer, or one that a later try may better."""

    reason = Reason.TARGET_UNREACHABLE


class Resting(Unreachable):
    """It did not answer others a moment ago, and was not asked again."""


class Refused(TargetError):
    """A final no."""


class BlobMissing(TargetError):
    """Create did not find the blob."""


class NoSpace(TargetError):
    """The target's disk is full."""


class OutcomeUnknown(TargetError):
    """The answer to create was cut off. `otherwise` is the error if the model turns out not to be there."""

    reason = Reason.TARGET_UNREACHABLE

    def __init__(self, words: str, *, otherwise: TargetError | None = None) -> None:
        super().__init__(words)
        self.otherwise = otherwise
