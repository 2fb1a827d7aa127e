"""Fixtures of the tasks' tests."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """The directory of data beside the checkout; a test that takes it is skipped where there is none."""
    if not SHARED.exists():
        pytest.skip(f"needs the shared data in {SHARED}")
    return SHARED
