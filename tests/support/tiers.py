"""Which variants of a test are of the extended tier (tests/README.md)."""

from __future__ import annotations

import pytest


def mark_variants(items: list[pytest.Item], *, is_whole: bool) -> None:
    """Marks as `extended` what `extended_when` and `extended_unless` name by parts of the variants' ids.

    `is_whole`: whole files were collected, so a name in `extended_unless` that no variant has is an error:
    what it was to keep in the default tier has another name now.
    """
    not_found: dict[str, set[str]] = {}
    for item in items:
        variant = item.name.partition("[")[2].removesuffix("]")
        when = _names(item, "extended_when")
        unless = _names(item, "extended_unless")
        test = item.nodeid.partition("[")[0]
        missing = not_found.setdefault(test, set(unless))
        missing.difference_update(name for name in unless if name in variant)
        if _has(variant, when) or (unless and not _has(variant, unless)):
            item.add_marker(pytest.mark.extended)
    wrong = [f"{test}: no variant is named {name!r}" for test, names in not_found.items() for name in names]
    if is_whole and wrong:
        raise pytest.UsageError("\n".join(["extended_unless:", *wrong]))


def _names(item: pytest.Item, marker: str) -> list[str]:
    return [name for found in item.iter_markers(marker) for name in found.args]


def _has(variant: str, names: list[str]) -> bool:
    return any(name in variant for name in names)
