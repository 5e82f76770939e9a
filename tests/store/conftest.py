"""A folder for the many tests that write thousands of small runs and cut no power."""

import os
import tempfile
from pathlib import Path

import pytest

MEMORY = "/dev/shm"


@pytest.fixture
def scratch():
    """A new folder, in memory where the system has one; what it holds should stay small."""
    where = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="jaxlens-", dir=where) as folder:
        yield Path(folder)
