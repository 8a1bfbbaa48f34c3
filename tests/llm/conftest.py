"""A server that speaks the Messages API, and models of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import pytest_asyncio
from tests.filling.conftest import lab  # noqa: F401 a fixture

from weft.agents.llm import Endpoint, Model, ModelEntry, Models, ModelSettings
from weft.rpc.deadline import SERVED
from weft.testing.messages_server import MessagesServer


class House:
    """Makes models of one server."""

    def __init__(self, server: MessagesServer) -> None:
        self.server = server
        self._made: list[Models] = []

    def models(self, *names: str, endpoint: dict[str, Any] | None = None, **further: Any) -> Models:
        """Models by name; the first falls back to the others. `entry` and `settings` are of each of them."""
        entry, settings = further.pop("entry", {}), further.pop("settings", {})
        at = {"idle": timedelta(seconds=5), "caching": True, **(endpoint or {})}
        where = Endpoint(**{"name": "test", "url": self.server.url, **at})
        names = names or ("claude-sonnet-5-5",)
        made = Models(
            {
                name: ModelEntry(
                    endpoint=where,
                    model=name,
                    fallback=names[1:] if place == 0 else (),
                    settings=ModelSettings(**settings),
                    **entry,
                )
                for place, name in enumerate(names)
            },
            **further,
        )
        self._made.append(made)
        return made

    def model(self, *names: str, **further: Any) -> Model:
        """The first of them."""
        names = names or ("claude-sonnet-5-5",)
        return self.models(*names, **further)[names[0]]

    async def close(self) -> None:
        for made in self._made:
            await made.close()


@pytest_asyncio.fixture(autouse=True)
async def nothing_served() -> AsyncIterator[None]:
    """Tests of one loop share a context: what one says it serves is not for the next."""
    SERVED.set(None)
    yield
    SERVED.set(None)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[MessagesServer]:
    """A server that speaks the Messages API."""
    async with MessagesServer() as running:
        yield running


@pytest_asyncio.fixture
async def house(server: MessagesServer) -> AsyncIterator[House]:
    """Models of that server."""
    pytest.importorskip("anthropic")
    made = House(server)
    yield made
    await made.close()


class Result:
    """What a tool found."""

    def __init__(self, text: str = "", json: object = None, *, is_error: bool = False) -> None:
        self.text, self.json, self.is_error = text, json, is_error


class Weigh:
    """A tool."""

    name = "weigh"
    description = "Says how heavy something is."
    input_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {"what": {"type": "string"}},
        "required": ["what"],
        "additionalProperties": False,
    }

    def __init__(self, failing: BaseException | None = None, found: Result | None = None) -> None:
        self.failing = failing
        self.found = found or Result(json={"kg": 2})
        self.asked: list[Any] = []

    async def __call__(self, arguments: Any) -> Result:
        self.asked.append(arguments)
        if self.failing is not None:
            raise self.failing
        return self.found


@pytest.fixture
def tools() -> Any:
    """Tools."""
    return SimpleNamespace(Weigh=Weigh, Result=Result)
