"""What a search engine is, and how one is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import httpx
import orjson

from weft import rpc

_MOST_BYTES = 4 * 1024 * 1024  # of an answer
_LONGEST = {"title": 300, "excerpt": 1_000, "published": 40, "url": 2_000}
_OK = 200
_BUSY = frozenset(
    {429, 432, 433}
)  # 432 and 433: Tavily's limits of a plan and of what is paid as one goes
_REFUSED = frozenset({401, 403})
_SERVER = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A page of the web.

    Attributes:
        url: where it is.
        title: its title.
        excerpt: what it says of what was looked for.
        published: when, as the engine says it; empty: it does not.
    """

    url: str
    title: str
    excerpt: str
    published: str = ""


class Engine(Protocol):
    """A search engine."""

    async def search(self, query: str, count: int) -> Sequence[Hit]:
        """Pages, the best first, at most `count`.

        Raises:
            rpc.Error: it does not answer.
        """
        ...


class EngineRefuses(rpc.FailedPrecondition):
    """The search engine refuses its operator: the key, or that it answers in JSON."""

    reason = "SEARCH_ENGINE_REFUSES"


async def asked(client: httpx.AsyncClient, request: httpx.Request) -> Any:
    """The JSON that an engine answers with.

    Raises:
        EngineRefuses: it does not know who asks.
        rpc.Unavailable: it does not answer, or not with JSON.
        rpc.ResourceExhausted: it was asked too often.
    """
    try:
        response = await client.send(request, stream=True)
        try:
            body = bytearray()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    raise _odd()
        finally:
            await response.aclose()
    except httpx.HTTPError as failed:
        kind = type(failed).__name__
        raise rpc.Unavailable(f"The search engine cannot be reached ({kind}).") from None
    _check(response)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _odd() from None


def hits(found: Any, names: Mapping[str, str], count: int) -> list[Hit]:
    """The hits of an answer; those without a URL of the web, and those that are there twice, are left out.

    Args:
        found: a list of objects.
        names: of the parts of a hit, by what they are.
        count: how many at most.
    """
    if not isinstance(found, list):
        raise _odd()
    made: dict[str, Hit] = {}
    for each in found:
        if not isinstance(each, Mapping) or len(made) >= count:
            continue
        parts = {part: _text(each.get(name), _LONGEST[part]) for part, name in names.items()}
        if parts["url"].startswith(("https://", "http://")):
            made.setdefault(parts["url"], Hit(**parts))
    return list(made.values())


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status == _OK:
        return
    if status in _REFUSED:
        raise EngineRefuses
    if status in _BUSY:
        wait = response.headers.get("retry-after", "")
        seconds = timedelta(seconds=int(wait)) if wait.isdigit() and len(wait) < 6 else None  # noqa: PLR2004 a day
        raise rpc.ResourceExhausted("The search engine was asked too often.", retry_after=seconds)
    if status >= _SERVER:
        raise rpc.Unavailable(f"The search engine answered {status}.")
    raise rpc.Internal(f"The search engine answered {status}.")


def _odd() -> rpc.Error:
    return rpc.Unavailable("The search engine's answer is none.", reason="SEARCH_ANSWER_INVALID")


def _text(value: object, most: int) -> str:
    return " ".join(value.split())[:most] if isinstance(value, str) else ""
