"""DBOS: a workflow of steps that do nothing, one after the other."""

from __future__ import annotations

import asyncio

from dbos import DBOS
from steps import arguments, measure

URL, STEPS, RUNS, AT_ONCE = arguments()
DBOS(config={"name": "steps", "system_database_url": URL, "log_level": "ERROR"})


@DBOS.step()
async def nothing(text: str) -> str:
    return text


@DBOS.workflow()
async def chain(text: str) -> str:
    for _ in range(STEPS):
        text = await nothing(text)
    return text


async def main() -> None:
    DBOS.launch()

    async def one() -> None:
        assert await chain("begin") == "begin"

    await measure(one, RUNS, AT_ONCE)


asyncio.run(main())
