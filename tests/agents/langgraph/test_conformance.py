"""LangGraph's own suite for checkpoint savers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

conformance = pytest.importorskip(
    "langgraph.checkpoint.conformance", reason="needs langgraph-checkpoint-conformance"
)


async def test_all_capabilities(database_url: str) -> None:
    from langgraph.checkpoint.conformance import checkpointer_test, validate

    from weft.agents.langgraph import AsyncpgSaver

    @checkpointer_test(name="AsyncpgSaver")
    async def made() -> AsyncIterator[Any]:
        async with AsyncpgSaver.opened(database_url) as saver:
            yield saver

    report = await validate(made)
    failures = {name: found.failures for name, found in report.results.items() if found.failures}
    assert failures == {}
    passed = [name for name, found in report.results.items() if found.passed]
    assert report.conformance_level() == "FULL"
    assert len(passed) == 8
