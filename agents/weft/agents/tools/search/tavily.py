"""Tavily (docs.tavily.com, POST /search)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import httpx

from weft.agents.tools.search.engine import Hit, asked, hits

_NAMES = {"url": "url", "title": "title", "excerpt": "content", "published": "published_date"}


class Tavily:
    """An Engine.

    Args:
        client: for its requests; whoever made it closes it.
        key: of the account, "tvly-...".
        depth: "advanced" finds more and costs twice as much.
        url: of its API.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        key: str,
        *,
        depth: Literal["basic", "advanced"] = "basic",
        url: str = "https://api.tavily.com",
    ) -> None:
        self._client = client
        self._key = key
        self._depth = depth
        self._url = url.rstrip("/")

    async def search(self, query: str, count: int) -> Sequence[Hit]:
        """See Engine."""
        request = self._client.build_request(
            "POST",
            f"{self._url}/search",
            json={"query": query, "max_results": count, "search_depth": self._depth},
            headers={"authorization": f"Bearer {self._key}"},
        )
        answer = await asked(self._client, request)
        return hits(answer.get("results") if isinstance(answer, dict) else None, _NAMES, count)
