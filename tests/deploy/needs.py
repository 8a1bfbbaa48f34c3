"""What a test needs of the machine. `.ci/run` installs it, and then a test that lacks it fails."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skips the test loudly, or fails it where everything has to be there (WEFT_TESTS_SKIP=never)."""
    if os.environ.get("WEFT_TESTS_SKIP") == "never":
        pytest.fail(f"this machine lacks {what}")
    pytest.skip(f"this machine lacks {what}")
