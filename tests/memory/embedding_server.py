"""A server that speaks OpenAI's and Ollama's embedding API. What it does is the model's name, its vectors are hashes of words."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn

from weft.agents.memory.testing import HashedEmbedder

DIMENSIONS = 32


class EmbeddingServer:
    """What was asked, and how it is answered."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._model = HashedEmbedder(dimensions=DIMENSIONS)

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        self.asked.append(request)
        self.keys.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        status, said, headers = await self._answer(scope["path"], request)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    async def _answer(
        self, path: str, request: dict[str, Any]
    ) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
        headers = [(b"content-type", b"application/json")]
        match request["model"]:
            case "busy":
                return 429, b'{"error": {"message": "slow down"}}', [(b"retry-after", b"7")]
            case "broken":
                return 500, b"oops", []
            case "unknown":
                return 404, b'{"error": "model not found"}', headers
            case "hangs":
                await asyncio.sleep(3600)
            case "html":
                return 200, b"<html>", []
            case "odd":
                return 200, b'{"data": "odd", "embeddings": 3}', headers
        vectors = [row.tolist() for row in await self._model.embed(request["input"])]
        match request["model"]:
            case "short":
                vectors = [vector[:-1] for vector in vectors]
            case "zero":
                vectors = [[0.0] * DIMENSIONS for _ in vectors]
            case "few":
                vectors = vectors[:-1]
        return 200, json.dumps(_said(path, request["model"], vectors)).encode(), headers


def _said(path: str, model: str, vectors: list[list[float]]) -> dict[str, Any]:
    if path == "/api/embed":
        return {"model": model, "embeddings": vectors, "total_duration": 1, "prompt_eval_count": 8}
    assert path == "/v1/embeddings"
    data = [
        {"object": "embedding", "index": number, "embedding": vector}
        for number, vector in enumerate(vectors)
    ]
    # The API promises no order.
    return {"object": "list", "data": data[::-1], "model": model, "usage": {"total_tokens": 8}}


@contextlib.asynccontextmanager
async def embedding_server() -> AsyncIterator[EmbeddingServer]:
    """The server on a free port."""
    app = EmbeddingServer()
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 it tells nobody
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    app.url = f"http://127.0.0.1:{port}"
    try:
        yield app
    finally:
        server.should_exit = True
        server.force_exit = True
        await serving
