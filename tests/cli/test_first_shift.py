"""docs/first-shift.md from its first line to its last, in one shell."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.conftest import environment
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-shift.md"
_QUARTER_OF_AN_HOUR = 15 * 60
_PATIENCE = 10 * 60  # seconds: the page promises more, and a test that hangs must not take it


def script(folder: Path) -> str:
    """All blocks of the page; its data in a folder of the test's."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 9
    return (
        "\n".join(blocks)
        .replace("/tmp/first-shift", str(folder))
        .replace(". .venv/bin/activate\n", "")
    )


@pytest.mark.failure
@pytest.mark.timeout(_QUARTER_OF_AN_HOUR)
@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_every_line_of_the_page(short_folder: Path, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    commands.mkdir()
    # What it installs is what tests run in.
    for name, line in (
        ("pip", "exit 0"),
        ("python3", "exit 0"),
        ("python", f'exec "{sys.executable}" "$@"'),
        ("weft", f'exec "{sys.executable}" -m weft.cli "$@"'),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    folder = short_folder / "first-shift"
    places = {
        name: f"127.0.0.1:{free_port()}"
        for name in ("REGISTRY", "BROKER", "GATEWAY", "GATEWAY_GRPC")
    }
    env = environment(
        folder,
        **{f"WEFT_{name}_LISTEN": place for name, place in places.items()},
        WEFT_REGISTRY=places["REGISTRY"],
        WEFT_BROKER=places["BROKER"],
        WEFT_GATEWAY=f"http://{places['GATEWAY']}",
    )
    env["PATH"] = f"{commands}:{env['PATH']}"
    began = time.monotonic()
    shell = subprocess.Popen(
        [
            "bash",
            "-e",
            "-c",
            f"trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script(folder)}",
        ],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = shell.communicate(timeout=_PATIENCE)
    finally:
        with contextlib.suppress(ProcessLookupError):  # what it left behind
            os.killpg(shell.pid, signal.SIGTERM)
    up = (folder / "up.txt").read_text() if (folder / "up.txt").exists() else ""
    assert shell.returncode == 0, f"{out}\n{err}\n{up}"
    assert time.monotonic() - began < _QUARTER_OF_AN_HOUR
    assert out.count("card-lost") >= 2, "asked before and after a registry died"
    assert "registry-2: ended" in out
    assert "support-quality is PAUSED: first shift" in out
    assert "1 drills" in out
    assert re.search(r"^\d+ calls answered, 0 failed$", out, re.MULTILINE)
    assert "0 lost" in out
