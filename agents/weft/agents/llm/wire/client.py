"""Single point of control for the anthropic SDK: one request, streamed, within a deadline, tried once.

What the SDK would do by itself is switched off or guarded here, each for its reason:

- It sleeps for as long as `retry-after` says, an hour if need be, and knows no deadline: it makes one attempt, the rest is
  `weft.agents.llm.asking`'s.
- It refuses long answers that are not streamed: all are streamed.
- It takes the end of a stream for the end of an answer, and stream errors come as three kinds of exceptions: `hearing`,
  `failures`.
- It reads credentials and headers from the environment and would send a key for one endpoint to another: it is always given
  the key.
- It follows redirects: a prompt does not go where nobody sent it.
- Its tool runner keeps the conversation at the server, which other servers do not: the loop is ours.
- It may be told by the environment to write prompts into spans: it is told not to.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from weft import rpc
from weft.agents.llm.endpoints import Endpoint
from weft.agents.llm.errors import ModelTooSlow
from weft.agents.llm.replies import Heard, Request
from weft.agents.llm.wire.failures import translated
from weft.agents.llm.wire.hearing import Hearing
from weft.agents.llm.wire.spans import Tracers
from weft.telemetry import Telemetry

if TYPE_CHECKING:
    import anthropic

T = TypeVar("T")
_USED = ("anthropic", "anthropic.resources.messages", "anthropic.lib.streaming")
_NO_KEY = "none"  # the SDK wants one


class ExtraMissing(rpc.FailedPrecondition):
    """Models need the extra `llm`: pip install 'weft[llm]'."""

    reason = "EXTRA_MISSING"


class Client:
    """An endpoint's client; made at its first use, for importing the SDK takes seconds.

    Args:
        endpoint: the endpoint.
        telemetry: where requests are traced; None: nowhere.
    """

    def __init__(self, endpoint: Endpoint, telemetry: Telemetry | None = None) -> None:
        self.endpoint = endpoint
        self._telemetry = telemetry
        self._sdk: anthropic.AsyncAnthropic | None = None
        self._making = asyncio.Lock()

    async def ready(self) -> anthropic.AsyncAnthropic:
        """The SDK's client.

        Raises:
            ExtraMissing: the SDK is not installed.
        """
        if self._sdk is None:
            async with self._making:
                if self._sdk is None:
                    # Importing takes seconds, and more is imported at the first use.
                    self._sdk = await asyncio.to_thread(self._imported)
        return self._sdk

    async def close(self) -> None:
        """Closes its connections."""
        if self._sdk is not None:
            await self._sdk.close()
            self._sdk = None

    async def listen(
        self, model: str, request: Request, deadline: rpc.Deadline, idle: float, heard: Heard
    ) -> AsyncGenerator[str]:
        """Makes a request; pieces of text as they come. Returns when the answer is whole.

        Args:
            model: the endpoint's name of it.
            request: what is asked.
            deadline: until when.
            idle: seconds without a byte after which nothing more is expected.
            heard: what came of it, also when it fails.

        Raises:
            rpc.Error: one of `weft.agents.llm.errors`.
        """
        where = {"model": model, "endpoint": self.endpoint.name}
        hearing = Hearing(heard, where)
        try:
            sdk = await _by(deadline, self.ready(), where)
            body = _body(self.endpoint, model, request)
            making = sdk.messages.create(**body, timeout=_timeout(self.endpoint, idle))
            stream = await _by(deadline, making, where)
            try:
                events = aiter(stream)
                while True:
                    try:
                        event = await _by(deadline, anext(events), where)
                    except StopAsyncIteration:
                        break
                    if text := hearing.hear(event):
                        yield text
            finally:
                # Also where nobody listens any more: the endpoint stops writing then.
                with contextlib.suppress(Exception):
                    await stream.close()
            hearing.end()
        except Exception as failed:
            error = translated(failed, where)
            if error is None or error is failed:
                raise
            raise error from failed
        finally:
            hearing.leave()

    def _imported(self) -> anthropic.AsyncAnthropic:
        try:
            for name in _USED:
                importlib.import_module(name)
        except ImportError:
            raise ExtraMissing from None
        return self._made()

    def _made(self) -> anthropic.AsyncAnthropic:
        import anthropic

        endpoint = self.endpoint
        key = endpoint.key or _NO_KEY
        headers = {endpoint.key_header: key} if endpoint.key_header else {}
        traces: Any = {"traces": False, "propagation": False}
        if self._telemetry is not None and self._telemetry.tracer is not None:
            traces = {
                "traces": {"enabled": True, "content_mode": "metadata_only"},
                "propagation": False,
                "tracer_provider": Tracers(self._telemetry),
            }
        made = anthropic.AsyncAnthropic(
            api_key=key,
            base_url=endpoint.url.rstrip("/").removesuffix("/v1"),
            max_retries=0,
            http_client=anthropic.DefaultAsyncHttpxClient(follow_redirects=False),
            open_telemetry=traces,
        )
        # In place of those that ANTHROPIC_CUSTOM_HEADERS adds, for whichever endpoint: no argument keeps them out.
        made._custom_headers = headers  # noqa: SLF001
        return made


def _timeout(endpoint: Endpoint, idle: float) -> Any:
    import httpx2

    return httpx2.Timeout(idle, connect=min(endpoint.connect.total_seconds(), idle))


async def _by(deadline: rpc.Deadline, work: Awaitable[T], where: dict[str, str]) -> T:
    try:
        async with asyncio.timeout(deadline.seconds()) as scope:
            return await work
    except TimeoutError:
        if scope.expired():
            raise ModelTooSlow(metadata=where) from None
        raise


def _body(endpoint: Endpoint, model: str, request: Request) -> dict[str, Any]:
    """The request as the API has it: only what the endpoint knows."""
    question = request.question
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens,
        "messages": list(question.turns),
        "stream": True,
    }
    kept = _cache_control(endpoint, request.cache)
    if question.system:
        body["system"] = question.system
        if kept:
            body["system"] = [{"type": "text", "text": question.system, "cache_control": kept}]
    if request.caches_turns and kept:
        body["cache_control"] = kept
    if request.tools:
        body["tools"] = list(request.tools)
        if request.tool_choice and endpoint.tool_choice:
            body["tool_choice"] = dict(request.tool_choice)
    config: dict[str, Any] = {}
    if request.schema is not None:
        config["format"] = {"type": "json_schema", "schema": dict(request.schema)}
    if request.effort:
        config["effort"] = request.effort
    if config:
        body["output_config"] = config
    if request.temperature is not None and endpoint.temperature:
        # The SDK has no parameter of this name any more.
        body["extra_body"] = {"temperature": request.temperature}
    return body


def _cache_control(endpoint: Endpoint, life: str) -> dict[str, str]:
    if not endpoint.caching or life not in {"5m", "1h"}:
        return {}
    return {"type": "ephemeral"} if life == "5m" else {"type": "ephemeral", "ttl": "1h"}
