"""The page that reads the OpenAPI document, in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.gateway.webdriver import THERE, Browser, chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not THERE, reason="needs Debian's packages chromium and chromium-driver"),
]


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path) as found:
        yield found


async def test_the_page_shows_and_calls_what_agents_offer(entry, browser: Browser) -> None:
    await browser.post("url", url=f"{entry.url}/docs")
    await browser.until("return document.querySelectorAll('details.skill').length > 0")
    listed = await browser.run(
        "return [...document.querySelectorAll('details.skill')].map(card => card.id)"
    )
    assert {"weft.echo.v1.EchoService/Say", "weft.echo.v1.EchoService/Repeat"} <= set(listed)

    card = "document.getElementById('weft.echo.v1.EchoService/Say')"
    await browser.run(f"{card}.open = true")
    await browser.until(f"return {card}.querySelector('textarea') !== null")
    await browser.run(
        f"const body = {card}.querySelector('textarea');"
        """body.value = '{"text": "from a page"}';"""
        "body.dispatchEvent(new Event('input', {bubbles: true}));"
        f"{card}.querySelector('button.send').click()"
    )
    await browser.until(f"return {card}.querySelector('.answer').innerText.includes('from a page')")
    assert "200" in await browser.run(f"return {card}.querySelector('.answer').innerText")

    assert await browser.complaints() == []
    hosts = {
        httpx.URL(url).netloc.decode() for url in await browser.asked() if url.startswith("http")
    }
    assert hosts == {entry.url.removeprefix("http://")}
