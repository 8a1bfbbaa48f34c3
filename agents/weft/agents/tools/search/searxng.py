"""SearXNG (docs.searxng.org, GET /search). Its settings must name `json` among `search.formats`."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from weft.agents.tools.search.engine import Hit, asked, hits

_NAMES = {"url": "url", "title": "title", "excerpt": "content", "published": "publishedDate"}


class SearXNG:
    """An Engine.

    Args:
        client: for its requests; whoever made it closes it.
        url: of the instance.
        language: of the pages, such as "de"; empty: as the instance is set up.
        categories: joined by commas; empty: as the instance is set up.
    """

    def __init__(
        self, client: httpx.AsyncClient, url: str, *, language: str = "", categories: str = ""
    ) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._further = {
            name: value
            for name, value in (("language", language), ("categories", categories))
            if value
        }

    async def search(self, query: str, count: int) -> Sequence[Hit]:
        """See Engine."""
        parameters = {"q": query, "format": "json", **self._further}
        request = self._client.build_request("GET", f"{self._url}/search", params=parameters)
        answer = await asked(self._client, request)
        return hits(answer.get("results") if isinstance(answer, dict) else None, _NAMES, count)
