"""Languages whose tools are not here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.polyglot.conftest import CLIENTS, PROGRAMS


def made(language: str, path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    make = shutil.which("make")
    assert make
    environment = {**os.environ, "PATH": str(path), "WEFT_TESTS_SKIP": "", **settings}
    command = (make, "-C", str(CLIENTS), language)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("language", list(PROGRAMS))
def test_a_language_whose_tools_are_missing_is_skipped_loudly(language: str, tmp_path: Path):
    done = made(language, tmp_path)
    assert done.returncode == 0
    assert f"SKIPPED: the client in {language} is not built: missing" in done.stderr


def test_where_none_may_be_skipped_that_is_a_failure(tmp_path: Path):
    done = made("go", tmp_path, WEFT_TESTS_SKIP="never")
    assert done.returncode != 0
    assert "SKIPPED" in done.stderr
