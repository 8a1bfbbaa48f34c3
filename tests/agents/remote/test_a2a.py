from __future__ import annotations

from tests.agents.remote.conftest import Mesh, free_port, http_server
from tests.agents.remote.peers import Told, card_of, clerk


async def test_try(mesh: Mesh) -> None:
    told = Told()
    port = free_port()
    card = card_of(f"http://127.0.0.1:{port}/rpc", "File", "Sort papers")
    async with (
        http_server(clerk(told, card), port) as url,
        mesh.keeping("clerk", "a2a", url),
    ):
        await mesh.served("clerk", "SortPapers")
        for text in [
            "hello there",
            "say hi",
            "ask what?",
            "sign in",
            "refuse no",
            "fail broke",
            "count 3",
        ]:
            answer = await mesh.call("clerk", "file", {"text": text})
            print(answer.status_code, answer.text)
        answer = await mesh.call("clerk", "file:stream", {"text": "count 3"})
        print(answer.status_code, answer.text)
        assert 0
