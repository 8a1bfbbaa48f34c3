"""A remote MCP server, the SDK's own, as an agent of the mesh."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mcp.client import Client
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from tests.agents.remote.conftest import PATIENCE, Mesh, http_server
from tests.agents.remote.peers import Crude, Told, heard, older, weather
from tests.ports import free_port

from weft import rpc
from weft.remote.v1 import content_pb2
from weft.rpc.call import IDENTITY_KEY
from weft.rpc.signing import Signer
from weft.rpc.testing import wait_until
from weft.v1.identity_pb2 import Identity


def reason(answer: httpx.Response) -> str:
    details = answer.json()["error"]["details"]
    return str(next(each["reason"] for each in details if each["@type"].endswith("ErrorInfo")))


def tool(name: str, **further: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", "properties": {}}, **further}


def text(said: str, **further: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": said}], **further}


@pytest.fixture(params=["2026-07-28", "2025-11-25"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def app_of(told: Told, protocol: str) -> Any:
    app = weather(told).streamable_http_app()
    return app if protocol == "2026-07-28" else older(app)


async def test_tools_are_skills(mesh: Mesh, protocol: str) -> None:
    async with (
        http_server(app_of(Told(), protocol)) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp", scopes=("weather.read",), timeout=7),
    ):
        await mesh.served("weather", "GetForecast")
        asked = {"city": "Oslo", "days": 2, "place": {"lat": 1, "lon": 2.5}}
        answer = await mesh.call("weather", "get_forecast", asked)
        # 64-bit integers are strings in ProtoJSON.
        assert answer.json() == {**asked, "days": ["0", "1"], "place": {"lat": 1.0, "lon": 2.5}}
        assert (await mesh.call("weather", "describe", {"city": "Oslo"})).json() == {
            "text": "Oslo is a city.",
            "contents": [{"text": "Oslo is a city."}],
        }
        shown = (await mesh.http.get("/agents/weather")).json()
        assert shown["description"] == "Knows the weather."
        skills = {each["name"]: each for each in shown["skills"]}
        assert skills["GetForecast"]["idempotency"] == "NO_SIDE_EFFECTS"
        assert skills["Describe"]["idempotency"] == "UNKNOWN"
        assert skills["Describe"]["requiredScopes"] == ["weather.read"]
        assert skills["Describe"]["defaultTimeout"] == "7s"


async def test_they_are_tools_again_at_the_gateway_s_own_door(mesh: Mesh) -> None:
    async with (
        http_server(app_of(Told(), "2026-07-28")) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp"),
    ):
        await mesh.served("weather", "GetForecast")
        async with Client(f"{mesh.gateway.url}/mcp") as client:
            tools = {each.name: each for each in (await client.list_tools()).tools}
            forecast = tools["weather_get_forecast"]
            assert forecast.description == "Forecast for a city."
            assert forecast.annotations is not None
            assert forecast.annotations.read_only_hint is True
            assert forecast.input_schema["required"] == ["city"]
            result = await client.call_tool("weather_get_forecast", {"city": "Rome", "days": 1})
            assert result.structured_content == {"city": "Rome", "days": ["0"]}
            failed = await client.call_tool("weather_fail", {"why": "There is fog."})
            assert failed.is_error
            assert "There is fog." in failed.content[0].text


async def test_errors_have_a_status(mesh: Mesh) -> None:
    async with (
        http_server(app_of(Told(), "2026-07-28")) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp"),
    ):
        await mesh.served("weather", "GetForecast")
        answer = await mesh.call("weather", "fail", {"why": "There is fog."})
        assert (answer.status_code, reason(answer)) == (400, "TOOL_FAILED")
        assert answer.json()["error"]["message"].endswith("There is fog.")
        answer = await mesh.call("weather", "get_forecast", {"days": 1})
        assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
        assert "city" in answer.text
        assert (await mesh.call("weather", "get_forecast", {"town": "x"})).status_code == 400


async def test_a_deadline_ends_the_tool_s_work(mesh: Mesh, protocol: str) -> None:
    told = Told()
    async with (
        http_server(app_of(told, protocol)) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp"),
    ):
        await mesh.served("weather", "Wait")
        answer = await mesh.call(
            "weather", "wait", {"seconds": 60}, headers={"x-request-timeout": "0.7"}
        )
        assert answer.status_code == 504
        await wait_until(lambda: told.cancelled == 1, PATIENCE)
        assert (await mesh.call("weather", "describe", {"city": "A"})).status_code == 200


async def test_a_caller_that_hangs_up_ends_the_tool_s_work(mesh: Mesh, protocol: str) -> None:
    told = Told()
    async with (
        http_server(app_of(told, protocol)) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp"),
    ):
        await mesh.served("weather", "Wait")
        call = asyncio.create_task(mesh.call("weather", "wait", {"seconds": 60}))
        await wait_until(lambda: told.running == 1, PATIENCE)
        call.cancel()
        await wait_until(lambda: told.cancelled == 1, PATIENCE)


async def test_a_new_tool_is_a_new_skill_at_once(mesh: Mesh, protocol: str) -> None:
    async with (
        http_server(app_of(Told(), protocol)) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp", refresh=600) as keeper,
    ):
        await mesh.served("weather", "Learn")
        before = keeper.address

        async def known() -> bool:
            # Once more: a server may tell before anybody listens.
            await mesh.call("weather", "learn", {"name": "repeat-it"})
            return (await mesh.call("weather", "repeat_it", {"text": "a"})).status_code == 200

        await wait_until(known, PATIENCE)
        assert keeper.address != before


async def test_a_tool_that_goes_is_a_skill_no_more(mesh: Mesh) -> None:
    server = weather(Told())
    async with (
        http_server(server.streamable_http_app()) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp", refresh=0.3),
    ):
        await mesh.served("weather", "Describe")
        server.remove_tool("describe")

        async def gone() -> bool:
            return (await mesh.call("weather", "describe", {"city": "A"})).status_code == 404

        await wait_until(gone, PATIENCE)
        assert (await mesh.call("weather", "get_forecast", {"city": "A"})).status_code == 200


async def test_a_remote_may_come_late_and_go_and_come_back(
    mesh: Mesh, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()

    async def in_service() -> bool:
        answer = await mesh.http.get("/agents/late")
        return answer.status_code == 200 and answer.json()["inService"] == 1

    async def answers() -> bool:
        return (await mesh.call("late", "describe", {"city": "A"})).status_code == 200

    with caplog.at_level(logging.INFO, "weft.agents"):
        async with mesh.keeping("late", "mcp", f"http://127.0.0.1:{port}/mcp") as keeper:
            await wait_until(lambda: "the remote is away" in caplog.text, PATIENCE)
            assert not keeper.registered.is_set()
            async with http_server(app_of(Told(), protocol), port):
                await wait_until(answers, PATIENCE)
            # The first call that finds it away has its health looked at.
            answer = await mesh.call("late", "describe", {"city": "A"})
            assert answer.status_code == 503

            async def out_of_service() -> bool:
                return not await in_service()

            await wait_until(out_of_service, PATIENCE)
            async with http_server(app_of(Told(), protocol), port):
                await wait_until(in_service, PATIENCE)
                await wait_until(answers, PATIENCE)
                assert "the remote is back" in caplog.text


async def test_a_server_may_forget_the_session(mesh: Mesh) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    async with mesh.keeping("forgetful", "mcp", url, refresh=600):
        async with http_server(app_of(Told(), "2025-11-25"), port):
            await mesh.served("forgetful", "Describe")
        async with http_server(app_of(Told(), "2025-11-25"), port):

            async def answers() -> bool:
                await asyncio.sleep(0.4)  # calls that fail soon open the gateway's breaker
                answer = await mesh.call("forgetful", "describe", {"city": "A"})
                return answer.status_code == 200

            await wait_until(answers, PATIENCE)


async def test_one_bad_tool_keeps_no_other_away(mesh: Mesh) -> None:
    loop = {"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}}
    tools: list[Any] = [
        None,
        {},
        {"name": 7},
        {"name": ""},
        {"name": "bare"},
        {"name": "odd", "inputSchema": "object"},
        tool("same", description="\u202eevil\x00" + "x" * 5_000),
        tool("same"),
        tool("get_x"),
        tool("getX"),
        tool("loop", inputSchema=loop),
        tool(
            "wide",
            inputSchema={"type": "object", "properties": {f"p{n}": {} for n in range(3_000)}},
        ),
        tool("../../etc/passwd"),
        tool("\u540d\u524d"),
        tool("n" * 300),
        tool("bad", annotations=[1], outputSchema={"type": "object", "properties": {"$": 1}}),
        tool("good"),
    ]
    crude = Crude(tools)
    crude.answers["tools/call"] = text("ok")
    async with (
        http_server(crude) as url,
        mesh.keeping("crude", "mcp", url),
    ):
        await mesh.served("crude", "Good")
        shown = (await mesh.http.get("/agents/crude")).json()["skills"]
        names = {each["name"] for each in shown}
        assert {"Bad", "Bare", "EtcPasswd", "Good", "Loop", "Odd", "Same", "Wide"} <= names
        assert len([name for name in names if name.startswith("GetX_")]) == 2
        assert len(names) == 11
        said = next(each["description"] for each in shown if each["name"] == "Same")
        assert said.startswith("evil")
        assert len(said) <= 1_000
        for each in ("good", "bare", "odd", "loop", "etc_passwd"):
            assert (await mesh.call("crude", each, {})).json()["text"] == "ok"
        # What no message can say takes any object.
        crude.answers["tools/call"] = text("any")
        assert (await mesh.call("crude", "wide", {"p1": [1, {"a": None}]})).json()["text"] == "any"


TYPED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
JSON_TYPE = "application/json"


@pytest.mark.parametrize(
    ("said", "status", "why"),
    [
        (text("x", structuredContent={"n": "one"}), 500, "REMOTE_ANSWER_INVALID"),
        (text("x"), 500, "REMOTE_ANSWER_INVALID"),
        ({"content": "none"}, 500, "REMOTE_ANSWER_INVALID"),
        ([], 500, "REMOTE_ANSWER_INVALID"),
        (PlainTextResponse("no", 500), 500, "REMOTE_ANSWERED_ERROR"),
        (PlainTextResponse("no", 401), 400, "REMOTE_UNAUTHENTICATED"),
        (PlainTextResponse("no", 429), 429, "REMOTE_RATE_LIMITED"),
        (PlainTextResponse("no", 503), 503, "REMOTE_UNAVAILABLE"),
        (PlainTextResponse("what?"), 400, ""),
        (Response(b"{", media_type=JSON_TYPE), 500, ""),
        (Response(b"[" * 100_000, media_type=JSON_TYPE), 500, ""),
        (Response(b" " * 5_000_000, media_type=JSON_TYPE), 400, "REMOTE_ANSWER_TOO_LARGE"),
        (
            Response(b"x", headers={"content-encoding": "gzip"}, media_type=JSON_TYPE),
            *(400, "REMOTE_REFUSED"),
        ),
        (RedirectResponse("http://localhost:1/", 307), 400, ""),
        (text("out of fog", isError=True), 400, "TOOL_FAILED"),
        (
            text(
                "x", isError=True, _meta={"dev.weft/error": {"status": "NOT_FOUND", "message": "m"}}
            ),
            *(404, "TOOL_FAILED"),
        ),
    ],
)
async def test_whatever_it_answers_is_an_error_of_one_call(
    crude: tuple[Mesh, Crude], said: Any, status: int, why: str
) -> None:
    mesh, server = crude
    if isinstance(said, list):
        said = Response(
            json.dumps({"jsonrpc": "2.0", "id": 1, "result": said}), media_type=JSON_TYPE
        )
    server.answers["tools/call"] = said
    answer = await mesh.call("typed", "count", {})
    assert answer.status_code in {status, 500} if not why else answer.status_code == status, (
        answer.text
    )
    assert not why or reason(answer) == why
    assert len(answer.text) < 5_000
    server.answers["tools/call"] = text("x", structuredContent={"n": 7, "more": "is left out"})

    async def well_again() -> bool:
        return (await mesh.call("typed", "count", {})).json() == {"n": "7"}

    await wait_until(well_again, PATIENCE)


@pytest_asyncio.fixture(scope="module")
async def crude(mesh: Mesh) -> Any:
    server = Crude([tool("count", outputSchema=TYPED)])
    async with http_server(server) as url, mesh.keeping("typed", "mcp", url):
        await mesh.served("typed", "Count")
        yield mesh, server


async def test_a_huge_answer_of_the_sdk_s_server(mesh: Mesh, protocol: str) -> None:
    async with (
        http_server(app_of(Told(), protocol)) as url,
        mesh.keeping("weather", "mcp", f"{url}/mcp"),
    ):
        await mesh.served("weather", "Pour")
        assert reason(await mesh.call("weather", "pour", {"bytes": 6_000_000})) == (
            "REMOTE_ANSWER_TOO_LARGE"
        )
        answer = await mesh.call("weather", "pour", {"bytes": 100_000})
        assert len(answer.json()["text"]) == 100_000


async def test_a_credential_goes_to_the_remote_and_nowhere_else(
    mesh: Mesh, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told, elsewhere = Told(), Told()
    file = tmp_path / "token"
    file.write_text("s3cret-one\n")
    crude = Crude([tool("go")])
    with caplog.at_level(logging.DEBUG):
        async with (
            http_server(heard(Crude([tool("go")]), elsewhere)) as other,
            http_server(heard(crude, told)) as url,
            mesh.keeping("kept", "mcp", url, token_file=str(file), refresh=0.3),
        ):
            await mesh.served("kept", "Go")
            assert {each["authorization"] for each in told.headers} == {"Bearer s3cret-one"}
            # It is replaced while the process runs.
            file.write_text("s3cret-two\n")
            replaced = "Bearer s3cret-two"
            await wait_until(lambda: told.headers[-1]["authorization"] == replaced, PATIENCE)
            crude.answers["tools/call"] = RedirectResponse(
                other.replace("127.0.0.1", "localhost"), 307
            )
            answer = await mesh.call("kept", "go", {})
            assert answer.status_code >= 400
            file.unlink()
            assert (await mesh.call("kept", "go", {})).status_code >= 400
    assert elsewhere.headers == []
    assert "s3cret" not in caplog.text
    assert "s3cret" not in answer.text


async def test_a_header_of_one_s_own(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setenv("WEATHER_KEY", "k3y")
    async with (
        http_server(heard(Crude([tool("go")]), told)) as url,
        mesh.keeping("keyed", "mcp", url, token_env="WEATHER_KEY", header="X-Api-Key"),
    ):
        await mesh.served("keyed", "Go")
        assert told.headers[0]["x-api-key"] == "k3y"
        assert "authorization" not in told.headers[0]


async def test_scopes_are_kept_by_the_agent_itself(mesh: Mesh) -> None:
    """Whoever calls it past the gateway needs them as well."""
    signer = Signer(Ed25519PrivateKey.generate())
    path = "/remote.guarded.v1.GuardedService/Go"
    crude = Crude([tool("go")])
    crude.answers["tools/call"] = text("ok")
    async with (
        http_server(crude) as url,
        mesh.keeping(
            "guarded", "mcp", url, scopes=("a.go",), identity_trust=signer.public
        ) as keeper,
    ):
        await mesh.served("guarded", "Go")

        async def call(*scopes: str) -> bytes:
            identity = signer.sign(Identity(subject="key:a", scopes=scopes))
            metadata = ((IDENTITY_KEY, identity.SerializeToString()),)
            async with rpc.Channel(keeper.address) as channel:
                answer: bytes = await channel.unary_unary(path)(b"", metadata=metadata)
                return answer

        assert content_pb2.ToolResult.FromString(await call("a.go")).text == "ok"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call("a.stop")
        assert rpc.error_from_call(refused.value).reason == "SCOPE_MISSING"
