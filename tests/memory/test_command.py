"""`weft agents serve knowledge` and `weft knowledge`: processes and a registry of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from weft.registry import Registry

COMMAND = (sys.executable, "-m", "weft.cli")
Runs = Callable[..., Coroutine[Any, Any, tuple[int, str]]]


@pytest_asyncio.fixture
async def weft(
    request: pytest.FixtureRequest,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    fresh_xds: None,
) -> AsyncIterator[Runs]:
    """Runs the command beside a served agent; returns its exit status and what it printed."""
    async with Registry(
        database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
    ) as registry:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WEFT_")}
        environment = {
            **kept,
            "WEFT_DATA": str(tmp_path),
            "WEFT_REGISTRY": registry.address,
            "WEFT_BROKER": "",
            "WEFT_DATABASE_URL": database_url,
            "WEFT_REDIS_URL": redis_url,
            **getattr(request, "param", {}),
        }
        serving = await asyncio.create_subprocess_exec(
            *(*COMMAND, "agents", "serve", "knowledge"),
            env=environment,
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

        async def run(*arguments: str) -> tuple[int, str]:
            process = await asyncio.create_subprocess_exec(
                *(*COMMAND, "knowledge", *arguments),
                env=environment,
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await process.communicate()
            assert process.returncode is not None
            return process.returncode, said.decode()

        try:
            async with asyncio.timeout(40):
                while (await run("search", "anything"))[0] != 0:
                    assert serving.returncode is None
            yield run
        finally:
            serving.terminate()
            await serving.communicate()


@pytest.mark.timeout(120)
async def test_documents_are_added_found_and_deleted(weft: Runs, tmp_path: Path):
    (tmp_path / "leave.md").write_text("# Leave\n\nYou have thirty days of leave a year.")
    (tmp_path / "travel.txt").write_text("Trains before planes.")
    status, said = await weft(
        "add", "leave.md", "travel.txt", "--metadata", "kind=handbook", "--json"
    )
    assert status == 0, said
    assert [(one["id"], one["chunks"]) for one in json.loads(said)] == [("leave", 1), ("travel", 1)]
    status, said = await weft(
        "search", "how many days of leave", "--where", "kind=handbook", "--json"
    )
    assert status == 0, said
    found = json.loads(said)
    assert found["way"] == "SEARCH_WAY_LEXICAL"
    assert found["because"] == "no embedding is set up"
    assert found["hits"][0]["citation"]["quote"] == "You have thirty days of leave a year."
    status, said = await weft("search", "leave")
    assert "Searched by words only: no embedding is set up." in said
    assert "You have thirty days of leave a year." in said
    assert await weft("delete", "leave") == (0, "Deleted: leave\n")
    status, said = await weft("delete", "leave")
    assert status != 0
    assert "There is no document of this id" in said
    status, said = await weft("add", "leave.md", "--metadata", "kind")
    assert status != 0
    assert "NAME=VALUE" in said


async def test_the_support_fleet_says_what_is_wrong_with_the_embedding(
    database_url: str, redis_url: str, tmp_path: Path
):
    async with Registry(database_url=database_url, address="127.0.0.1:0") as registry:
        serving = await asyncio.create_subprocess_exec(
            *(*COMMAND, "agents", "serve", "support", "--only", "support-research"),
            env={
                **os.environ,
                "WEFT_DATA": str(tmp_path),
                "WEFT_REGISTRY": registry.address,
                "WEFT_BROKER": "",
                "WEFT_DATABASE_URL": database_url,
                "WEFT_REDIS_URL": redis_url,
                "WEFT_EMBEDDING": "ollama",
            },
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(40):
            _, said = await serving.communicate()
    assert serving.returncode != 0
    assert b"WEFT_EMBEDDING: the embedding is a service: name its url and model" in said


LOCAL = {
    "WEFT_EMBEDDING": "local",
    "WEFT_EMBEDDING_WEIGHTS": os.environ.get("WEFT_TEST_WEIGHTS", ""),
}


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("weft", [LOCAL], indirect=True)
async def test_a_model_on_this_machine_finds_what_shares_no_word(weft: Runs, tmp_path: Path):
    (tmp_path / "leave.md").write_text("# Vacation\n\nYou have thirty days of leave a year.")
    (tmp_path / "parking.md").write_text("# Cars\n\nPark behind the building.")
    status, said = await weft("add", "leave.md", "parking.md")
    assert status == 0, said
    status, said = await weft("search", "how long may my holidays be", "--json")
    assert status == 0, said
    found = json.loads(said)
    assert found["embedding"].startswith("all-MiniLM-L6-v2@")
    assert found["hits"][0]["citation"]["documentId"] == "leave"
