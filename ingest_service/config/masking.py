"""Settings as they may be shown: without passwords, tokens and keys."""

from __future__ import annotations

import re

MASK = "***"
#: Everything between `//` (or a target's `=`) and the last `@`, however odd a password is.
_CREDENTIALS = re.compile(r"(://|=).+@", re.DOTALL)
_USER_AND_PASSWORD = re.compile(r"(://[^:/?#@]*:).+@", re.DOTALL)
_ARGUMENT = re.compile(r"([?&][^=&?]*=)[^&]*", re.DOTALL)
#: Arguments of a database's URL that tell nothing secret.
_HARMLESS_ARGUMENTS = frozenset(
    {
        "application_name",
        "cache",
        "connect_timeout",
        "database",
        "host",
        "immutable",
        "mode",
        "nolock",
        "port",
        "ssl",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "target_session_attrs",
        "uri",
        "user",
    }
)


def masked_database_url(url: str) -> str:
    """The user stays, for it says where to look; of what is behind `?` only what is known to be harmless."""

    def argument(found: re.Match[str]) -> str:
        return found[0] if found[1][1:-1] in _HARMLESS_ARGUMENTS else f"{found[1]}{MASK}"

    return _ARGUMENT.sub(argument, _USER_AND_PASSWORD.sub(rf"\g<1>{MASK}@", url))


def masked_target_url(url: str) -> str:
    """Neither user nor password: a token is often given as the user."""
    return _CREDENTIALS.sub(rf"\g<1>{MASK}@", url)


def masked_refused(text: str) -> str:
    """A value that could not be read: nobody knows where in it a secret is."""
    text = _CREDENTIALS.sub(rf"\g<1>{MASK}@", text)
    return re.sub(r"([?#]).*", rf"\g<1>{MASK}", text, flags=re.DOTALL) if "://" in text else text
