from __future__ import annotations

import json
import re
from typing import Any

import pytest
from google.api import annotations_pb2, field_behavior_pb2, http_pb2
from google.protobuf import descriptor_pb2

from weft.gateway.jobs import own_agent
from weft.gateway.openapi import document
from weft.gateway.openapi.paths import PathBook
from weft.gateway.transcoding.catalog import Catalog, Contract
from weft.gateway.transcoding.template import parse
from weft.v1 import options_pb2

F = descriptor_pb2.FieldDescriptorProto
CONTENT = "application/json"


@pytest.fixture(scope="module")
def api(fleet: Catalog) -> dict[str, Any]:
    return document(fleet.methods.values())


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(references(each) for each in value.values()))
    if isinstance(value, list):
        return set().union(*(references(each) for each in value))
    return set()


def operations(api: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in api["paths"].values() for operation in path.values()]


def thing(**rules: http_pb2.HttpRule) -> Catalog:
    """A service with a method for each rule."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    message = file.message_type.add(name="Thing")
    message.oneof_decl.add(name="choice")
    message.field.add(name="name", number=1, type=F.TYPE_STRING, label=1)
    message.field.add(name="big_number", number=2, type=F.TYPE_INT64, label=1)
    message.field.add(name="part", number=3, type=F.TYPE_MESSAGE, label=1, type_name=".t.Thing")
    message.field.add(name="parts", number=4, type=F.TYPE_MESSAGE, label=3, type_name=".t.Thing")
    message.field.add(name="labels", number=5, type=F.TYPE_STRING, label=3)
    message.field.add(
        *(), name="at", number=6, type=F.TYPE_MESSAGE, label=1,
        type_name=".google.protobuf.Timestamp", oneof_index=0,
    )  # fmt: skip
    message.field.add(name="secret", number=7, type=F.TYPE_STRING, label=1, oneof_index=0)
    message.field[0].options.Extensions[field_behavior_pb2.field_behavior].append(
        field_behavior_pb2.REQUIRED
    )
    hints = message.field[6].options.Extensions[options_pb2.hints]
    hints.secret, hints.description = True, "What nobody may see."
    service = file.service.add(name="ThingService")
    for name, rule in rules.items():
        method = service.method.add(name=name, input_type=".t.Thing", output_type=".t.Thing")
        method.options.Extensions[annotations_pb2.http].CopyFrom(rule)
        skill = method.options.Extensions[options_pb2.skill]
        skill.examples.append('{"name": "n", "big_number": 5, "part": {"name": "p"}}')
        skill.examples.append("not valid")
        skill.required_scopes.append("things.write")
    serialized = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    return Catalog([Contract(agent="a", services=("t.ThingService",), descriptor_set=serialized)])


def described(rule: http_pb2.HttpRule, path: str, verb: str) -> dict[str, Any]:
    operation: dict[str, Any] = document(thing(Do=rule).methods.values())["paths"][path][verb]
    return operation


def test_the_document_is_whole(api: dict[str, Any]):
    assert api["openapi"].startswith("3.1.")
    json.dumps(api, allow_nan=False)
    for reference in references(api):
        at: Any = api
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    ids = [operation["operationId"] for operation in operations(api)]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in api["tags"]}
    assert all(set(operation["tags"]) <= tags for operation in operations(api))
    for path, verbs in api["paths"].items():
        names = {part[1:-1] for part in path.replace(":", "/").split("/") if part.startswith("{")}
        for operation in verbs.values():
            given = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert given == names


def test_every_method_has_its_routes_and_its_connect_path(api: dict[str, Any], fleet: Catalog):
    for method in fleet.methods.values():
        if method.client_streaming:
            assert method.path not in api["paths"]
            continue
        assert api["paths"][method.path]["post"]["x-weft-method"] == method.full_name
    handle = api["paths"]["/v1/support:handle"]["post"]
    body = handle["requestBody"]["content"][CONTENT]
    assert body["schema"] == {"$ref": "#/components/schemas/weft.support.v1.HandleRequest"}
    assert body["examples"]["example1"]["value"] == {"text": "I am still waiting on my card?"}
    assert handle["description"].startswith("Answers a customer's question")
    assert handle["x-weft-timeout-seconds"] == 30
    assert "405" not in handle["responses"]


def test_queries_and_paths_are_parameters(api: dict[str, Any]):
    search = api["paths"]["/v1/support/passages:search"]["get"]
    assert "requestBody" not in search
    shown = {p["name"]: p for p in search["parameters"]}
    assert shown["query"]["required"]
    assert shown["query"]["example"] == "top up failed"
    assert shown["limit"]["schema"]["type"] == "integer"
    article = api["paths"]["/v1/support/articles/{article_id}"]["get"]
    assert [(p["name"], p["in"], p["example"]) for p in article["parameters"]] == [
        ("article_id", "path", "card-arrival")
    ]
    reply = article["responses"]["200"]["content"][CONTENT]["schema"]
    assert reply["$ref"].endswith("weft.support.v1.Article")


def test_streams_are_events(api: dict[str, Any]):
    for path in ("/v1/support:watch", "/weft.support.v1.SupervisorService/Watch"):
        content = api["paths"][path]["post"]["responses"]["200"]["content"]
        further = [] if path.startswith("/weft.") else ["application/x-ndjson", CONTENT]
        assert list(content) == ["text/event-stream", *further]


def test_errors_have_the_form_of_their_door(api: dict[str, Any]):
    rest = api["paths"]["/v1/support:handle"]["post"]["responses"]["default"]
    connect = api["paths"]["/weft.support.v1.SupervisorService/Handle"]["post"]
    assert rest == {"$ref": "#/components/responses/Error"}
    assert connect["responses"]["default"] == {"$ref": "#/components/responses/ConnectError"}
    error = api["components"]["schemas"]["Error"]["properties"]["error"]
    assert error["required"] == ["code", "message", "status"]
    assert "NOT_FOUND" in error["properties"]["status"]["enum"]


def test_keys_are_a_security_scheme(api: dict[str, Any]):
    schemes = api["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["apiKey"]["in"], schemes["apiKey"]["name"]) == ("header", "x-api-key")
    assert api["security"] == [{"bearer": []}, {"apiKey": []}]
    scoped = described(http_pb2.HttpRule(post="/t", body="*"), "/t", "post")
    assert scoped["security"][0] == {"bearer": ["things.write"]}


def test_messages_are_schemas():
    schemas = document(thing(Do=http_pb2.HttpRule(get="/t")).methods.values())["components"][
        "schemas"
    ]
    made = schemas["t.Thing"]
    assert made["required"] == ["name"]
    assert made["additionalProperties"] is False
    assert made["description"] == "At most one of `at`, `secret`."
    assert made["properties"]["bigNumber"]["type"] == ["string", "integer"]
    assert made["properties"]["part"] == {"$ref": "#/components/schemas/t.Thing"}
    assert made["properties"]["parts"]["items"] == {"$ref": "#/components/schemas/t.Thing"}
    assert made["properties"]["at"] == {"type": "string", "format": "date-time"}
    secret = made["properties"]["secret"]
    assert (secret["format"], secret["description"]) == ("password", "What nobody may see.")


@pytest.mark.parametrize(
    ("number", "fits"),
    [
        *((str(each), True) for each in (0, 7, -7, 2**63 - 1, -(2**63), 9 * 10**18, 10**17)),
        *((str(each), False) for each in (2**63, -(2**63) - 1, 10**19)),
        *((text, False) for text in ("", "x", "1.5", "07", "+1", " 1", "1e3")),
    ],
)
def test_a_number_of_64_bits_is_told_by_its_pattern(number: str, *, fits: bool):
    schemas = document(thing(Do=http_pb2.HttpRule(get="/t")).methods.values())["components"]
    schema = schemas["schemas"]["t.Thing"]["properties"]["bigNumber"]
    assert (re.search(schema["pattern"], number) is not None) == fits
    assert (schema["minimum"], schema["maximum"]) == (-(2**63), 2**63 - 1)


def test_what_a_field_takes_is_told():
    operations = document(Catalog([own_agent.contract()]).methods.values())["paths"]
    listed = operations["/v1/jobs"]["get"]["parameters"]
    schemas = {each["name"]: each["schema"] for each in listed}
    assert schemas["pageSize"]["minimum"] == 0
    assert schemas["pageToken"]["format"] == "page-token"
    (job,) = operations["/v1/jobs/{id}"]["get"]["parameters"][:1]
    assert not re.search(job["schema"]["pattern"], "")
    assert re.search(job["schema"]["pattern"], "9f1c")
    # A body is needed where something in it is.
    assert operations["/weft.v1.JobService/GetJob"]["post"]["requestBody"]["required"]
    assert not operations["/weft.v1.JobService/ListJobs"]["post"]["requestBody"]["required"]
    assert not operations["/v1/jobs/{id}:wait"]["post"]["requestBody"]["required"]


def test_what_the_path_fills_is_not_in_the_body_nor_in_the_query():
    operation = described(http_pb2.HttpRule(put="/t/{name}", body="*"), "/t/{name}", "put")
    content = operation["requestBody"]["content"][CONTENT]
    assert "name" not in content["schema"]["properties"]
    assert "required" not in content["schema"]
    assert content["examples"] == {"example1": {"value": {"bigNumber": "5", "part": {"name": "p"}}}}
    partly = described(http_pb2.HttpRule(patch="/t/{name}", body="part"), "/t/{name}", "patch")
    names = [p["name"] for p in partly["parameters"]]
    assert names == ["name", "bigNumber", "labels", "at", "secret", "Idempotency-Key"]
    part = partly["requestBody"]["content"][CONTENT]
    assert part["examples"] == {"example1": {"value": {"name": "p"}}}
    nested = described(http_pb2.HttpRule(get="/t/{part.name}"), "/t/{part.name}", "get")
    names = [p["name"] for p in nested["parameters"]]
    assert "part.name" in names
    assert names.count("part.name") == 1
    assert {"part.bigNumber", "part.part.at"} <= set(names)


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ("/v1/{name}", "/v1/{name}"),
        ("/v1/{name=foo/*}", "/v1/foo/{name}"),
        ("/v1/{name=shelves/*/books/*}", "/v1/shelves/{shelf}/books/{book}"),
        ("/v1/{name=shelves/*/books/*}:read", "/v1/shelves/{shelf}/books/{book}:read"),
        ("/v1/{name=**}", "/v1/{name}"),
        ("/v1/{book.name=books/**}", "/v1/books/{book.name}"),
        ("/v1/{name=*/*}", "/v1/{segment}/{segment_2}"),
        ("/v1/*/x", "/v1/{segment}/x"),
        ("/v1/caf%C3%A9/a%2Fb", "/v1/caf%C3%A9/a%2Fb"),
        ("/v1/{name=only/literals}", "/v1/only/literals"),
        ("/", "/"),
    ],
)
def test_templates_are_written_as_openapi_can(template: str, path: str):
    assert PathBook().route(parse(template)).path == path


def test_paths_that_differ_in_names_only_are_one_path():
    catalog = thing(
        Get=http_pb2.HttpRule(get="/t/{name}"),
        Delete=http_pb2.HttpRule(delete="/t/{part.name}"),
        All=http_pb2.HttpRule(post="/t/{secret=**}"),
    )
    paths = document(catalog.methods.values())["paths"]
    assert set(paths["/t/{secret}"]) == {"get", "delete", "post"}
    assert len(paths) == 4
    assert paths["/t/{secret}"]["get"]["parameters"][0]["name"] == "secret"
    many = paths["/t/{secret}"]["post"]["parameters"][0]
    assert many["x-weft-slashes"]
    assert "slashes" in many["description"]


def test_versions_of_one_type_have_names_of_their_own():
    first = thing(Do=http_pb2.HttpRule(get="/t"))
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    file.message_type.add(name="Thing")
    file.service.add(name="OtherService").method.add(
        name="Do", input_type=".t.Thing", output_type=".t.Thing"
    )
    serialized = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    second = Catalog([Contract(agent="b", services=("t.OtherService",), descriptor_set=serialized)])
    made = document([*first.methods.values(), *second.methods.values()])
    names = [name for name in made["components"]["schemas"] if name.startswith("t.Thing")]
    assert len(names) == 2
    other = made["paths"]["/t.OtherService/Do"]["post"]["requestBody"]["content"][CONTENT]
    assert other["schema"]["$ref"].endswith(names[1])


def test_methods_of_ones_own_are_left_out():
    rule = http_pb2.HttpRule(custom={"kind": "PURGE", "path": "/t"})
    assert list(document(thing(Do=rule).methods.values())["paths"]) == ["/t.ThingService/Do"]


def test_no_methods_are_a_document_too():
    assert document([])["paths"] == {}
