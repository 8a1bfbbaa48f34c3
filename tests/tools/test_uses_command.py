"""`weft tools uses`: records as people and programs read them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta
from typing import Any

from weft.agents.tools import DatabaseAudit
from weft.agents.tools.audit.record import Outcome, Use


async def weft(database_url: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "weft.cli", "tools", "uses", *arguments),
        env={**os.environ, "WEFT_DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 50)
    assert process.returncode == 0
    return said.decode()


async def test_records_are_shown_and_filtered(audit: DatabaseAudit, database_url: str) -> None:
    assert await audit.latest() == []
    done = Outcome(code="OK", duration=timedelta(milliseconds=250))
    ann = Use(tool="fetch", subject="user:ann", tenant="acme", arguments={"url": "https://x.test/"})
    await audit.note(ann, done)
    eve = Use(tool="shop", subject="user:eve", tenant="acme", conversation="c-1")
    await audit.note(eve, Outcome(code="PERMISSION_DENIED", reason="SCOPE_MISSING"))
    filters: list[tuple[dict[str, Any], list[Use]]] = [
        ({}, [eve, ann]),
        ({"most": 1}, [eve]),
        ({"tool": "fetch"}, [ann]),
        ({"subject": "user:eve"}, [eve]),
        ({"tenant": "acme"}, [eve, ann]),
        ({"tenant": "other"}, []),
        ({"conversation": "c-1"}, [eve]),
        ({"outcome": "OK"}, [ann]),
        ({"outcome": "OK", "tool": "shop"}, []),
    ]
    for wanted, expected in filters:
        assert [use.id for use, _ in await audit.latest(**wanted)] == [use.id for use in expected]

    header, first, second = (await weft(database_url)).splitlines()
    assert header.split() == ["BEGAN", "TOOL", "WHO", "TENANT", "OUTCOME", "TOOK", "ARGUMENTS"]
    assert first.split()[2:6] == ["shop", "user:eve", "acme", "SCOPE_MISSING"]
    assert second.split()[2:8] == ["fetch", "user:ann", "acme", "OK", "250", "ms"]
    assert second.endswith('{"url": "https://x.test/"}')
    (told,) = json.loads(await weft(database_url, "--subject", "user:eve", "--json"))
    assert (told["id"], told["reason"]) == (str(eve.id), "SCOPE_MISSING")
