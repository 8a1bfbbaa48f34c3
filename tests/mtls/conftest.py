from __future__ import annotations

from pathlib import Path

import pytest
from tests.certificates import Certificates


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """The authority of a test's mesh."""
    return Certificates(tmp_path)


@pytest.fixture
def foreign(tmp_path: Path) -> Certificates:
    """An authority that says it is of the same trust domain, and nobody believes."""
    return Certificates(tmp_path / "foreign")
