"""What the README says to paste works when pasted."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from tests.ports import free_port

from weft import embedded

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
MARK = "<!-- pasted by tests/cli/test_readme.py -->\n"


def block(after: str, page: str = "README.md") -> str:
    """The shell block that follows a text of the README, or another page."""
    behind = (ROOT / page).read_text().split(after, 1)[1]
    found = re.search(r"```sh\n(.*?)```", behind, re.DOTALL)
    assert found is not None
    return found[1]


def paste(text: str, house, tools, folder: Path) -> str:
    """Runs it in a shell whose mesh is the test's; what it printed."""
    commands = folder / "commands"
    commands.mkdir()
    # What it installs is part of the environment that tests run in.
    for name, line in (
        ("pip", "exit 0"),
        ("python", f'exec "{sys.executable}" "$@"'),
        ("weft", f'exec "{sys.executable}" -m weft.cli "$@"'),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    empty = folder / "empty"
    empty.mkdir()
    gateway = house.address("gateway").removeprefix("http://")
    script = text.replace("localhost:7080", gateway).replace(". .venv/bin/activate\n", "")
    env = tools.environment(house.data, **house.environment())
    told = subprocess.run(
        ["bash", "-e", "-c", f"trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}"],
        cwd=empty,
        env={**env, "PATH": f"{commands}:{env['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


@pytest.fixture
def database(house):
    """Asks the mesh's PostgreSQL for a value."""

    async def ask(query: str) -> object:
        servers = embedded.endpoints(house.data)
        assert servers is not None
        connection = await asyncpg.connect(servers.database_url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return lambda query: asyncio.run(ask(query))


def test_the_lines_to_ask_a_running_mesh(house, tools, tmp_path: Path):
    printed = paste(block("in another terminal:"), house, tools, tmp_path)
    assert printed.count("card-lost") > 1, "weft ask and curl both cite the article"
    assert "support-triage" in printed
    assert '"intent"' in printed


def test_an_agent_of_one_s_own(house, tools, tmp_path: Path):
    text = block(MARK)
    assert len(text.splitlines()) < 30
    assert paste(text, house, tools, tmp_path).count("Hello, Ann!") == 2


def test_an_agent_with_a_model(house, tools, tmp_path: Path, database):
    text = block(MARK, "docs/models.md").replace("11435", str(free_port()))
    assert "Greet Ann." in paste(text, house, tools, tmp_path)
    # What it spent is in the ledger of the mesh, though no setting named one.
    assert database("SELECT count(*) FROM weft_models.model_requests WHERE agent = 'greeter'") == 1
