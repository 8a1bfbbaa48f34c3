"""The agent `knowledge`, made of what it needs, for a weft.agents.Host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from weft import embedded
from weft.agents.memory.embedding import Embedder
from weft.agents.memory.embedding.http import OllamaEmbedder, OpenAIEmbedder
from weft.agents.memory.embedding.local import LocalEmbedder
from weft.agents.memory.knowledge import Knowledge, database
from weft.agents.memory.service import KnowledgeAgent


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSettings:
    """What makes vectors."""

    by: Literal["none", "local", "openai", "ollama"] = "none"
    """Nothing, the model that ships, or a service with one of these APIs."""
    weights: Path | None = None
    """Folder with the weights of the model that ships."""
    url: str = ""
    """Of the service: https://api.openai.com/v1, http://localhost:11434."""
    model: str = ""
    """Which of its models."""
    dimensions: int = 0
    """Numbers in a vector of that model."""
    key: str = ""
    """Sent as a bearer token; empty: none."""


@asynccontextmanager
async def embedder(settings: EmbeddingSettings) -> AsyncIterator[Embedder | None]:
    """What makes vectors, as the settings say; None: nothing does.

    Raises:
        ValueError: a setting is missing, or the weights are not there or others.
        NotInstalled: the extra `memory` is not installed.
    """
    match settings.by:
        case "none":
            yield None
        case "local":
            if settings.weights is None:
                raise ValueError("the embedding is local, and no folder with weights is named")
            async with await LocalEmbedder.open(settings.weights) as local:
                yield local
        case _:
            if not (settings.url and settings.model):
                raise ValueError("the embedding is a service: name its url and model")
            kind = OpenAIEmbedder if settings.by == "openai" else OllamaEmbedder
            service = kind(
                settings.url,
                model=settings.model,
                dimensions=settings.dimensions,
                key=settings.key,
            )
            async with service:
                yield service


@asynccontextmanager
async def knowledge_agent(
    *, database_url: str, redis_url: str = "", embedder: Embedder | None = None
) -> AsyncIterator[KnowledgeAgent]:
    """The servicer, ready to serve; what has no vectors yet is embedded as long as the context.

    Args:
        database_url: of PostgreSQL; long-term memory keeps to the schema `memory`.
        redis_url: of Redis, where results are kept for a minute; empty: they are not.
        embedder: what makes vectors; None: nothing, documents are found by their words.

    Raises:
        PgvectorMissing: vectors cannot be stored.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await database(database_url))
        cache = None
        if redis_url:
            cache = await stack.enter_async_context(embedded.redis_client(redis_url))
        knowledge = Knowledge(store, [embedder] if embedder is not None else [], cache=cache)
        await stack.enter_async_context(knowledge.kept())
        yield KnowledgeAgent(knowledge)
