"""Forms of a REST answer: streams by Accept, bodies of any type, partial answers, HEAD and OPTIONS."""

from __future__ import annotations

import gzip
import json

import pytest
from tests.gateway.entries import Why

from weft.gateway.doors.accept import preferred
from weft.rpc.testing import wait_until

JSON = {"content-type": "application/json"}
REPEAT = "/v1/echo:repeat"
THREE = b'{"text":"x","count":3}'
MESSAGES = [{"text": "x"}, {"text": "x", "number": 1}, {"text": "x", "number": 2}]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("text/html", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream", "text/event-stream"),
        ("application/json", "application/json"),
        ("application/*", "application/x-ndjson"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/jsonl", "application/jsonl"),
        ("Application/X-NDJSON; q=0.9, text/event-stream;q=0.1", "application/x-ndjson"),
        ("*/*;q=0.1, application/json;q=0.2", "application/json"),
        ("text/event-stream;q=0, */*", "application/x-ndjson"),
        ("application/json;q=nonsense", "text/event-stream"),
    ],
)
async def test_the_caller_chooses_the_form_of_a_stream(wire, accept, kind):
    answer = await wire.ask("POST", REPEAT, JSON | {"accept": accept}, THREE)
    assert answer.headers["content-type"] == kind
    text = answer.body.decode()
    if kind == "text/event-stream":
        lines = [line.removeprefix("data: ") for line in text.split("\n") if line[:4] == "data"]
        assert [json.loads(line) for line in lines] == [*MESSAGES, {}]
    elif kind == "application/json":
        assert json.loads(text) == MESSAGES
    else:
        assert [json.loads(line) for line in text.split("\n")[:-1]] == MESSAGES


def test_a_range_that_is_more_specific_counts_more():
    offered = (b"text/plain", b"application/json")
    assert preferred(b"*/*;q=1, text/plain;q=0.2, application/*;q=0.3", offered) == offered[1]


@pytest.mark.parametrize(
    "accept",
    [
        pytest.param("application/json", marks=pytest.mark.gateway_only(Why.ARRAYS)),
        "application/x-ndjson",
    ],
)
async def test_no_messages_and_errors(wire, accept):
    headers = JSON | {"accept": accept}
    empty = await wire.ask("POST", REPEAT, headers, b"{}")
    assert empty.body == (b"[]\n" if accept == "application/json" else b"")
    early = await wire.ask("POST", REPEAT, headers, b'{"failWith":5}')
    assert (early.status, early.headers["content-type"]) == (404, "application/json")
    late = await wire.ask("POST", REPEAT, headers, b'{"text":"x","count":2,"failWith":5}')
    assert (late.status, late.whole) == (200, True)
    found = (
        json.loads(late.body)
        if accept == "application/json"
        else [json.loads(line) for line in late.body.splitlines()]
    )
    assert found[:2] == MESSAGES[:2]
    assert found[2]["error"]["status"] == "NOT_FOUND"


async def test_a_caller_that_hangs_up_cancels_the_stream(wire, mesh):
    body = b'{"count":1000,"pause":"0.05s"}'
    async with wire.open() as connection:
        await connection.send("POST", REPEAT, JSON | {"accept": "application/x-ndjson"}, body)
        await connection.head()
        await connection.chunk()
        assert mesh.in_flight == 1
    await wait_until(lambda: mesh.in_flight == 0)


# google.api.HttpBody


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("image/png", bytes(range(256))),
        ("text/plain; charset=utf-8", b"abc"),
        ("application/json", b"{not json"),
        ("application/octet-stream", b""),
    ],
)
async def test_a_raw_body_goes_both_ways(wire, mirror, kind, body):
    answer = await wire.ask("POST", "/v1/mirror:turn", {"content-type": kind}, body)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    assert answer.body == body[::-1]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_raw_body_in_a_field(wire, mirror):
    headers = {"content-type": "text/csv"}
    answer = await wire.ask("PUT", "/v1/mirror/n%20m", headers, b"a,b")
    assert (answer.headers["content-type"], answer.body) == ("text/csv", b"b,an m")


async def test_a_raw_body_is_json_at_the_connect_door(wire, mirror):
    path = "/tests.mirror.v1.MirrorService/Turn"
    answer = await wire.ask("POST", path, JSON, b'{"contentType":"a/b","data":"YWI="}')
    assert json.loads(answer.body) == {"contentType": "a/b", "data": "YmE="}


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("text/csv", "text/csv"),
        ("", "application/octet-stream"),
        ("text/csv%0D%0Aset-cookie:a", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
    ],
)
async def test_raw_bodies_in_a_stream(wire, mirror, given, kind):
    answer = await wire.ask("GET", f"/v1/mirror:pour?count=3&contentType={given}")
    assert answer.headers["content-type"] == kind
    assert "set-cookie" not in answer.headers
    assert (answer.body, answer.whole) == (b"0;1;2;", True)


async def test_an_error_cuts_a_raw_stream(wire, mirror):
    answer = await wire.ask("GET", "/v1/mirror:pour?count=2&fail=true")
    assert (answer.body, answer.whole) == (b"0;1;", False)
    early = await wire.ask("GET", "/v1/mirror:pour?fail=true")
    assert early.status == 404
    empty = await wire.ask("GET", "/v1/mirror:pour")
    assert (empty.body, empty.whole) == (b"", True)


async def test_raw_bodies_in_the_document(http, mirror):
    paths = (await http.get("/openapi.json")).json()["paths"]
    turn = paths["/v1/mirror/{name}"]["put"]
    assert list(turn["requestBody"]["content"]) == ["*/*"]
    assert list(turn["responses"]["200"]["content"]) == ["*/*"]
    assert list(paths["/v1/mirror:pour"]["get"]["responses"]["200"]["content"]) == ["*/*"]


# Partial answers

REFLECT = "/v1/mirror:reflect"


@pytest.mark.parametrize(
    ("mask", "keys"),
    [
        ("text", {"text"}),
        ("text,firstEntry.value", {"text", "firstEntry"}),
        ("first_entry.key_name", {"firstEntry"}),
        ("entries.value, by_key", {"entries", "byKey"}),
        ("firstEntry.value,firstEntry", {"firstEntry"}),
        ("*", {"text", "entries", "firstEntry", "byKey"}),
    ],
)
async def test_a_field_mask_leaves_out_the_rest(wire, mirror, mask, keys):
    body = b'{"text":"a"}'
    answer = await wire.ask("POST", REFLECT, JSON | {"x-goog-fieldmask": mask}, body)
    found = json.loads(answer.body)
    assert found.keys() == keys
    if "firstEntry" in keys:
        inner = {"value"} if mask.endswith("y.value") else {"keyName"} if "key_n" in mask else None
        assert found["firstEntry"].keys() == (inner or {"keyName", "value"})
    if mask.startswith("entries"):
        assert {tuple(entry) for entry in found["entries"]} == {("value",)}


@pytest.mark.parametrize("query", ["text=a&$fields=text", "%24fields=text&text=a"])
async def test_a_field_mask_in_the_query_of_a_stream(wire, mirror, query):
    headers = {"accept": "application/json"}
    answer = await wire.ask("GET", f"/v1/mirror:twice?{query}", headers)
    assert json.loads(answer.body) == [{"text": "a"}, {"text": "a"}]
    other = await wire.ask("GET", "/v1/mirror:twice?text=a&$fields=entries", headers)
    assert json.loads(other.body) == [{}, {}]


@pytest.mark.parametrize(
    "mask", ["", ",", "nope", "text.a", "byKey.a", "firstEntry.", "a" * 5_000, ".".join("a" * 99)]
)
async def test_masks_of_what_is_no_field(wire, mirror, mask):
    answer = await wire.ask("GET", f"/v1/mirror:twice?$fields={mask}&text=a")
    assert answer.status == (200 if mask == "" else 400)


# HTTP methods


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/echo/a", "GET, HEAD, OPTIONS"),
        ("/v1/echo:say", "OPTIONS, POST"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
        ("/agents", "GET, HEAD, OPTIONS"),
    ],
)
async def test_the_methods_of_a_path(wire, path, allow):
    options = await wire.ask("OPTIONS", path)
    assert (options.status, options.headers["allow"]) == (204, allow)
    refused = await wire.ask("PATCH", path, JSON, b"{}")
    assert (refused.status, refused.headers["allow"]) == (405, allow)
    assert (await wire.ask("OPTIONS", "/nowhere")).status == 404


@pytest.mark.parametrize("path", ["/v1/echo/a", "/v1/mirror:twice", "/openapi.json", "/docs"])
async def test_head_is_get_without_its_body(wire, mirror, path):
    async with wire.open() as connection:
        await connection.send("HEAD", path)
        head = await connection.answer(no_body=True)
        await connection.send("GET", "/healthz")  # nothing was sent between
        assert (await connection.answer()).body == b'{"status":"SERVING"}'
    assert head.status == 200
    assert head.headers["content-type"] == (await wire.ask("GET", path)).headers["content-type"]


@pytest.mark.gateway_only(Why.MEDIA_TYPES)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/proto"]
)
async def test_a_rest_route_takes_json(wire, kind):
    assert (await wire.ask("POST", "/v1/echo:say", {"content-type": kind}, b"a=b")).status == 415


async def test_a_compressed_body(wire):
    packed = gzip.compress(b'{"text":"hi"}')
    gzipped = JSON | {"content-encoding": "gzip"}
    answer = await wire.ask("POST", "/v1/echo:say", gzipped, packed)
    assert json.loads(answer.body)["text"] == "hi"
    assert (await wire.ask("POST", "/v1/echo:say", gzipped, packed[:-1])).status == 400
    bomb = gzip.compress(b" " * 5_000_000)
    assert (await wire.ask("POST", "/v1/echo:say", gzipped, bomb)).status == 413
    other = JSON | {"content-encoding": "br"}
    assert (await wire.ask("POST", "/v1/echo:say", other, packed)).status == 415


# Agents


async def test_agents_and_their_skills(http, mirror):
    listed = (await http.get("/agents")).json()["agents"]
    assert [agent["name"] for agent in listed] == ["echo", "mirror"]
    echo = (await http.get("/agents/echo")).json()
    assert echo == listed[0]
    assert (echo["inService"], echo["instances"], echo["tags"]) == (1, 1, ["diagnostics"])
    skills = {skill["name"]: skill for skill in echo["skills"]}
    assert skills["Say"]["routes"] == [
        {"method": "POST", "path": "/v1/echo:say"},
        {"method": "GET", "path": "/v1/echo/{text}"},
    ]
    assert (skills["Say"]["idempotency"], skills["Say"]["defaultTimeout"]) == (
        "NO_SIDE_EFFECTS",
        "10s",
    )
    assert {name: skill["streams"] for name, skill in skills.items()} == {
        "Say": "none",
        "SayOnce": "none",
        "Repeat": "reply",
        "Gather": "request",
        "Talk": "both",
    }
    reflect = listed[1]["skills"][0]
    assert (reflect["requiredScopes"], reflect["tags"]) == (["mirror.look"], ["shine"])
    assert "127.0.0.1" not in json.dumps(listed)


@pytest.mark.parametrize("name", ["nobody", "", "%ff", "%zz"])
async def test_an_agent_that_is_not_there(http, name):
    answer = await http.get(f"/agents/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["details"][0]["reason"] == "AGENT_UNKNOWN"
