"""Services whose import folder is filled before they start, or while they run."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nobody_leaves_a_task(no_task_left: None) -> None:
    """Holds for every test here."""
