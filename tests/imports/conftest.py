"""Fixtures of the fault tests, for those whose service is killed."""

from __future__ import annotations

import pytest

from tests.faults.conftest import new_url

__all__ = ["new_url"]


@pytest.fixture(autouse=True)
def nobody_leaves_a_task(no_task_left: None) -> None:
    """Holds for every test here."""
