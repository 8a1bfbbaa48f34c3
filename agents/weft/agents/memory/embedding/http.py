"""Embedding services by HTTP: those that speak the API of OpenAI (also vLLM, LiteLLM, llama.cpp), and Ollama."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

import httpx
import numpy as np

from weft import rpc
from weft.agents.memory.embedding.port import (
    MOST_DIMENSIONS,
    EmbedderUnavailable,
    Vectors,
    WrongVectors,
    checked,
)

_BATCH = 64  # texts
_AT_ONCE = 4
_TIMEOUT = timedelta(seconds=30)
_LATER = frozenset({408, 409, 425, 429, 529})
_SERVER_ERRORS = 500
_MOST_RETRY_AFTER = 3_600.0  # seconds


class EmbedderRefuses(rpc.FailedPrecondition):
    """The embedding service does not take what it is asked."""

    reason = "EMBEDDER_REFUSES"


class _HttpEmbedder:
    """Asks a service for vectors. Close it by `close()`.

    Args:
        url: of the service.
        model: which model.
        dimensions: numbers in its vectors; answers with others are refused.
        key: sent as a bearer token; empty: none.
        name: of what makes the vectors; by default the model and its dimensions.
        before_documents: what the model wants before a document, such as "search_document: ".
        before_questions: what it wants before a question, such as "search_query: ".
        timeout: longest wait for an answer; less where the current deadline is nearer.

    Raises:
        ValueError: the dimensions are out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        dimensions: int,
        key: str = "",
        name: str = "",
        before_documents: str = "",
        before_questions: str = "",
        timeout: timedelta = _TIMEOUT,
    ) -> None:
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"a vector has 1 to {MOST_DIMENSIONS:,} dimensions")
        self.name = name or f"{model}/{dimensions}"
        self.dimensions = dimensions
        self.model = model
        self._before = {False: before_documents, True: before_questions}
        self._timeout = timeout.total_seconds()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(base_url=url.rstrip("/"), headers=headers)

    async def embed(self, texts: Sequence[str], *, question: bool = False) -> Vectors:
        """A vector of length 1 for each text.

        Raises:
            EmbedderUnavailable: the service cannot be reached, is overloaded, or took too long.
            EmbedderRefuses: it does not know the model, or the key.
            WrongVectors: it gave something else.
        """
        given = [self._before[question] + text for text in texts]
        parts = [given[begin : begin + _BATCH] for begin in range(0, len(given), _BATCH)]
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(self._part(part)) for part in parts]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        made = [task.result() for task in asked]
        return np.concatenate(made) if made else np.empty((0, self.dimensions), np.float32)

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _part(self, texts: Sequence[str]) -> Vectors:
        async with self._turns:
            said = await self._post(*self._request(texts))
        try:
            rows = self._rows(said)
        except (KeyError, TypeError, IndexError, ValueError):
            raise WrongVectors("The embedding service answered something else.") from None
        return checked(rows, texts=len(texts), dimensions=self.dimensions)

    def _request(self, texts: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
        """Path and body of what is asked."""
        raise NotImplementedError

    def _rows(self, said: Any) -> Sequence[Sequence[float]]:
        """The vectors of an answer, in order."""
        raise NotImplementedError

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        deadline = rpc.Deadline.current()
        left = self._timeout if deadline is None else min(self._timeout, deadline.seconds())
        try:
            async with asyncio.timeout(left):
                response = await self._client.post(path, json=body, timeout=left)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as failed:
            raise EmbedderUnavailable("The embedding service cannot be reached.") from failed
        if response.is_success:
            try:
                return response.json()
            except ValueError:
                raise WrongVectors("The embedding service answered no JSON.") from None
        if response.status_code in _LATER or response.status_code >= _SERVER_ERRORS:
            raise EmbedderUnavailable(
                f"The embedding service is not available now (HTTP {response.status_code}).",
                retry_after=_retry_after(response),
            )
        raise EmbedderRefuses(
            f"The embedding service refuses (HTTP {response.status_code}); check the model "
            f"{self.model} and the key."
        )


class OpenAIEmbedder(_HttpEmbedder):
    """A service with OpenAI's API: POST {url}/embeddings, the url with its version, as https://api.openai.com/v1."""

    def _request(self, texts: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
        return "/embeddings", {
            "model": self.model,
            "input": list(texts),
            "encoding_format": "float",
        }

    def _rows(self, said: Any) -> Sequence[Sequence[float]]:
        # The order is not promised: each vector says which text it is of.
        return [one["embedding"] for one in sorted(said["data"], key=lambda one: one["index"])]


class OllamaEmbedder(_HttpEmbedder):
    """Ollama: POST {url}/api/embed, the url as http://localhost:11434."""

    def _request(self, texts: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
        return "/api/embed", {"model": self.model, "input": list(texts), "truncate": True}

    def _rows(self, said: Any) -> Sequence[Sequence[float]]:
        rows: Sequence[Sequence[float]] = said["embeddings"]
        return rows


def _retry_after(response: httpx.Response) -> timedelta | None:
    said = response.headers.get("retry-after", "")
    try:
        return timedelta(seconds=min(max(float(said), 0.0), _MOST_RETRY_AFTER))
    except ValueError:
        return None
