"""The agent `knowledge` as this command hosts it, and as commands ask it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from weft.cli import connect, failures, identities

if TYPE_CHECKING:
    from weft.agents.memory.embedding import Embedder
    from weft.config import Settings
    from weft.v1.knowledge_pb2_grpc import KnowledgeServiceAsyncStub

AGENT = "knowledge"


def way(settings: Settings) -> str:
    """How the agent finds documents: "lexical", by their words alone, or "hybrid"."""
    return "lexical" if settings.embedding == "none" else "hybrid"


@contextlib.asynccontextmanager
async def embedder(settings: Settings) -> AsyncIterator[Embedder | None]:
    """What makes vectors, as the settings say; None: nothing does.

    Raises:
        WrongSetting: one of them cannot be used.
    """
    from weft.agents.memory import fleet
    from weft.agents.memory.embedding.local import NotInstalled

    embedding = fleet.EmbeddingSettings(
        by=settings.embedding,
        weights=settings.embedding_weights,
        url=settings.embedding_url,
        model=settings.embedding_model,
        dimensions=settings.embedding_dimensions,
        key=settings.embedding_key,
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            with failures.settings_checked("WEFT_EMBEDDING"):
                made = await stack.enter_async_context(fleet.embedder(embedding))
        except NotInstalled as missing:
            raise failures.WrongSetting(f"WEFT_EMBEDDING: {missing}.") from missing
        yield made


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[KnowledgeServiceAsyncStub]:
    """The agent of a mesh, called as whoever runs the command.

    Raises:
        Failure: there is none, or nothing can be reached; says what to do.
    """
    from weft.v1.knowledge_pb2_grpc import KnowledgeServiceStub

    async with connect.registry(settings.registry) as registry:
        try:
            await registry.agent(AGENT)
        except failures.Failure as failed:
            raise failures.Failure(
                "No agent `knowledge` is in service. Start everything with `weft up`, or one with "
                "`weft agents serve knowledge`."
            ) from failed
    identity = identities.operator(settings)
    async with connect.to_agent(settings.registry, AGENT, identity, zone=settings.zone) as channel:
        yield KnowledgeServiceStub(channel)
