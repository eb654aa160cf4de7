"""Rule C1: what a chat template must not have. No template is rendered here, but by others it is."""

from __future__ import annotations

import re

#: The ways out of Jinja2's templates that are known; no template of a chat needs one.
_ESCAPE = re.compile(
    r"__(?:class|globals|builtins|subclasses|mro|bases?|init|import|getattribute|dict|code|reduce\w*)__"
    r"|\|\s*attr\s*\("
)


def unsafe_part(template: str) -> str | None:
    """The part with which it would break out of its sandbox, if there is one."""
    found = _ESCAPE.search(template)
    return found.group() if found else None
