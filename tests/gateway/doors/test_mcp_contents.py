"""What MCP hosts get of a contract that says more than most: contents, resources, headers, pages."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import jsonschema
import orjson
import pytest
import pytest_asyncio
from tests.conformance.mcp.fleet import PNG, fleet, generated
from tests.gateway.doors.mcp_client import ask, call, modern, refused

from weft import embedded
from weft.agents.contract import contract_of
from weft.gateway.doors.mcp.origins import Origins
from weft.gateway.doors.mcp.shelf import Shelf
from weft.gateway.transcoding.catalog import Catalog, Contract

_NUMBERS = itertools.count()


@pytest_asyncio.fixture(scope="module")
async def database(servers: embedded.Endpoints) -> AsyncIterator[str]:
    name = f"mcp_{next(_NUMBERS)}"
    admin = await asyncpg.connect(servers.database_url)
    await admin.execute(f"create database {name} template template0")
    yield urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest_asyncio.fixture(scope="module")
async def http(fresh_xds_of_module: None, database: str) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        fleet(database) as (gateway, _),
        httpx.AsyncClient(base_url=gateway.url, timeout=20) as client,
    ):
        yield client


async def test_contents_other_than_text(http: httpx.AsyncClient) -> None:
    image = (await call(http, "test_image_content"))["content"]
    assert [each["type"] for each in image] == ["image"]
    assert image[0]["mimeType"] == "image/png"
    audio = (await call(http, "test_audio_content"))["content"]
    assert (audio[0]["type"], audio[0]["mimeType"]) == ("audio", "audio/wav")
    embedded_resource = (await call(http, "test_embedded_resource"))["content"][0]
    assert embedded_resource["resource"] == {
        "uri": "weft://agents/conformance/skills/Embedded",
        "mimeType": "application/json",
        "text": '{"embedded":true}',
    }
    mixed = (await call(http, "test_multiple_content_types"))["content"]
    assert [each["type"] for each in mixed] == ["text", "image", "resource"]
    assert "structuredContent" not in await call(http, "test_simple_text")


async def test_results_fit_their_schemas(http: httpx.AsyncClient) -> None:
    listed = {tool["name"]: tool for tool in (await ask(http, "tools/list"))["tools"]}
    for tool in listed.values():
        jsonschema.Draft202012Validator.check_schema(tool["inputSchema"])
        jsonschema.Draft202012Validator.check_schema(tool.get("outputSchema", {}))
    for name, arguments in (
        ("test_tool_with_progress", {}),
        ("conformance_get_data", {"id": "7"}),
        ("json_schema_2020_12_tool", {"name": "n", "address": {"street": "s"}}),
        ("guarded", {}),
    ):
        jsonschema.validate(arguments, listed[name]["inputSchema"])
        result = await call(http, name, **arguments)
        jsonschema.validate(result["structuredContent"], listed[name]["outputSchema"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"unknown": 1}, listed["conformance_get_data"]["inputSchema"])
    defined = listed["json_schema_2020_12_tool"]["inputSchema"]
    assert defined["properties"]["address"] == {"$ref": "#/$defs/address"}
    assert defined["$defs"]["address"]["properties"].keys() == {"street", "city"}


async def test_resources_of_an_agent(http: httpx.AsyncClient) -> None:
    uris = [each["uri"] for each in (await ask(http, "resources/list"))["resources"]]
    assert uris == sorted(uris)
    assert {"test://static-text", "test://static-binary", "weft://agents/conformance"} <= {*uris}
    text = (await ask(http, "resources/read", {"uri": "test://static-text"}))["contents"][0]
    assert text["mimeType"] == "text/plain"
    assert text["text"].startswith("This is")
    blob = (await ask(http, "resources/read", {"uri": "test://static-binary"}))["contents"][0]
    assert len(blob["blob"]) >= len(PNG)
    read = await ask(http, "resources/read", {"uri": "test://template/a%2Fb/data"})
    assert orjson.loads(read["contents"][0]["text"])["id"] == "a/b"
    for uri in ("test://template/none/data", "test://template/a/b/data", "test://template//data"):
        error = await refused(http, "resources/read", {"uri": uri})
        assert (error["code"], error["data"]) == (-32602, {"uri": uri})


async def test_an_agent_makes_prompts(http: httpx.AsyncClient) -> None:
    listed = {each["name"]: each for each in (await ask(http, "prompts/list"))["prompts"]}
    name = "test_prompt_with_embedded_resource"
    assert listed[name]["arguments"] == [
        {"name": "resourceUri", "description": "The skill's resourceUri.", "required": True}
    ]
    params = {"name": name, "arguments": {"resourceUri": "test://x"}}
    first, second = (await ask(http, "prompts/get", params))["messages"]
    assert first["content"]["resource"]["text"] == '{"uri":"test://x"}'
    assert second == {
        "role": "user",
        "content": {"type": "text", "text": "Please process the embedded resource above."},
    }
    error = await refused(http, "prompts/get", {"name": name})
    assert (error["code"], error["data"]["status"]) == (-32602, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("arguments", "headers", "accepted"),
    [
        ({}, {}, True),
        ({"region": "eu", "priority": 3}, {"region": "eu", "priority": "3"}, True),
        ({"region": "eu", "priority": 3}, {"region": "eu", "priority": "3.0"}, True),
        ({"region": "eu"}, {}, False),
        ({"region": "eu"}, {"region": "us"}, False),
        ({"priority": 3}, {"priority": "4"}, False),
        ({"priority": 3}, {"priority": "x"}, False),
        ({"urgent": True}, {"urgent": "true"}, True),
        ({"urgent": True}, {"urgent": "True"}, False),
        ({"region": None}, {}, True),
        ({}, {"region": "eu"}, False),
        ({"region": "Hello"}, {"region": "=?base64?SGVsbG8=?="}, True),
        ({"region": "Hello"}, {"region": "=?base64?SGVsbG8?="}, False),
        ({"region": "Hello"}, {"region": "=?base64?SGVs!!!bG8=?="}, False),
        ({"region": "SGVsbG8="}, {"region": "SGVsbG8="}, True),
        ({"region": "=?base64?SGVsbG8="}, {"region": "=?base64?SGVsbG8="}, True),
        ({"secret": "never"}, {}, True),
    ],
)
async def test_headers_repeat_arguments(
    http: httpx.AsyncClient, arguments: dict[str, Any], headers: dict[str, str], *, accepted: bool
) -> None:
    params = {"name": "test_x_mcp_header", "arguments": arguments}
    body, sent = modern("tools/call", params)
    sent |= {f"mcp-param-{name}": value for name, value in headers.items()}
    answer = await http.post("/mcp", json=body, headers=sent)
    if accepted:
        assert "isError" not in answer.json()["result"]
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)


async def test_headers_are_named_in_the_schema(http: httpx.AsyncClient) -> None:
    listed = {tool["name"]: tool for tool in (await ask(http, "tools/list"))["tools"]}
    properties = listed["test_x_mcp_header"]["inputSchema"]["properties"]
    named = {name: each.get("x-mcp-header") for name, each in properties.items()}
    assert named == {"region": "Region", "priority": "Priority", "urgent": "Urgent", "secret": None}
    prompts = {each["name"]: each for each in (await ask(http, "prompts/list"))["prompts"]}
    arguments = [each["name"] for each in prompts["test_x_mcp_header"]["arguments"]]
    assert arguments == ["region", "priority", "urgent"]


async def test_a_thousand_callers_get_their_own_answers(http: httpx.AsyncClient) -> None:
    gate = asyncio.Semaphore(50)

    async def one(number: int) -> None:
        async with gate:
            result = await call(http, "conformance_get_data", id=f"n{number}")
        assert result["structuredContent"]["id"] == f"n{number}"

    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(one(number))


# Without a gateway


@pytest.fixture(scope="module")
def contract() -> Contract:
    _, pb2_grpc = generated()
    made = contract_of(pb2_grpc.ConformanceServiceServicer())
    return Contract(agent="conformance", descriptor_set=made.descriptors, services=(made.service,))


def test_lists_come_in_pages(contract: Contract) -> None:
    whole = Shelf(Catalog([contract])).tool_list.page(None, None)
    names = [each["name"] for each in orjson.loads(whole.body)["tools"]]
    listing = Shelf(Catalog([contract]), page=4).tool_list
    found: list[str] = []
    cursor = None
    while True:
        page = orjson.loads(listing.page(None, cursor).body)
        assert 1 <= len(page["tools"]) <= 4
        found += [each["name"] for each in page["tools"]]
        cursor = page.get("nextCursor")
        if cursor is None:
            break
    assert found == names


def test_what_is_no_resource_or_no_name_is_told(
    contract: Contract, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf(Catalog([contract]))
    uris = {offer.uri for offer in shelf.offers}
    assert "test://static-text" in uris
    assert not {"test://effect", "weft://agents/foreign", "test://{nothing}"} & uris
    told = caplog.text
    assert "NO_SIDE_EFFECTS" in told
    assert "weft://agents/foreign" in told
    assert "nothing cannot be filled in" in told
    assert "'no name' is no name for a tool" in told
    assert "conformance_effect" in shelf.tools


def test_a_new_catalog_keeps_what_did_not_change(contract: Contract) -> None:
    catalog = Catalog([contract])
    first = Shelf(catalog)
    second = Shelf(Catalog([contract], previous=catalog), previous=first)
    assert second.changed_lists(first) == set()
    assert second.changed_agents(first) == set()
    assert all(second.tools[name] is tool for name, tool in first.tools.items())
    empty = Shelf(Catalog(), previous=second)
    assert empty.changed_lists(second) == {"tools", "prompts", "resources"}
    assert empty.changed_agents(second) == {"conformance"}


def test_pages_of_a_public_gateway_are_those_it_is_told() -> None:
    public = Origins(local=False, allowed=["https://app.example.com/"])
    assert public.accept(b"mesh.example.com", b"")
    assert public.accept(b"mesh.example.com", b"https://app.example.com")
    assert not public.accept(b"mesh.example.com", b"https://mesh.example.com")
    assert not public.accept(b"mesh.example.com", b"http://localhost:3000")
    behind_a_proxy = Origins(local=True, allowed=["https://app.example.com"])
    assert behind_a_proxy.accept(b"app.example.com", b"https://app.example.com")
    assert not behind_a_proxy.accept(b"other.example.com", b"https://app.example.com")
