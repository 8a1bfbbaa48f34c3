"""The cases that grpc-gateway's own tests state, as data (source and licence in each file).

Those that differ are listed in docs/transcoding.md with the reason; the list must be exactly right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, json_format, message_factory

from weft import rpc
from weft.gateway.transcoding.fields import resolve
from weft.gateway.transcoding.query import QueryBinder
from weft.gateway.transcoding.router import MethodNotAllowed, Route, Router
from weft.gateway.transcoding.schema import Schema
from weft.gateway.transcoding.template import TemplateError, parse

DATA = Path(__file__).parent / "data"
DOCUMENT = Path(__file__).parents[3] / "docs" / "transcoding.md"
PATHS = json.loads((DATA / "grpc_gateway_paths.json").read_text())
QUERIES = json.loads((DATA / "grpc_gateway_query.json").read_text())
PACKAGE = "cases"


def listed() -> set[str]:
    """The cases that the document lists as different."""
    return set(re.findall(r"^\| `([a-z_]+/\d+)`", DOCUMENT.read_text(), re.MULTILINE))


def differing(section: str, cases: list[Any], agrees: Callable[[Any], bool]) -> set[str]:
    return {f"{section}/{n}" for n, case in enumerate(cases) if not agrees(case)}


def of_section(section: str) -> set[str]:
    return {case for case in listed() if case.startswith(f"{section}/")}


def test_path_patterns():
    def agrees(case: dict[str, Any]) -> bool:
        template = parse(case["template"])
        router = Router([Route(http_method="GET", template=template, target="")])
        try:
            values = router.match("GET", case["path"]).values
        except rpc.NotFound:
            return not case["match"]
        bindings = dict(zip((v.name for v in template.variables), values, strict=True))
        return case["match"] and bindings == case.get("bindings", bindings)

    cases = PATHS["pattern_match"]
    assert len(cases) == 67
    assert differing("pattern_match", cases, agrees) == of_section("pattern_match")


def test_routing():
    def agrees(case: dict[str, Any]) -> bool:
        router = Router(
            Route(
                http_method=each["method"],
                template=parse(each["template"]),
                target=f"{each['method']} {each['template']}",
            )
            for each in case["patterns"]
        )
        request, expected = case["request"], case["expect"]
        try:
            matched = router.match(request["method"], request["path"]).target
        except MethodNotAllowed:
            return expected["status"] == 405
        except rpc.Error as error:
            return expected["status"] == rpc.HTTP_STATUS[error.code]
        return (expected["status"], expected["matched"]) == (200, matched)

    cases = PATHS["mux"]
    assert len(cases) == 29
    assert differing("mux", cases, agrees) == of_section("mux")


def test_template_grammar():
    def agrees(case: dict[str, Any]) -> bool:
        try:
            template = parse(case["template"])
        except TemplateError:
            return not case["valid"]
        fields = [variable.name for variable in template.variables]
        return (
            case["valid"]
            and template.verb == case.get("verb", "")
            and fields == case.get("fields", fields)
        )

    cases = PATHS["template_parse"]
    assert len(cases) == 27
    assert differing("template_parse", cases, agrees) == of_section("template_parse")


@pytest.fixture(scope="module")
def schema(protos: Any) -> Schema:
    return Schema(protos.serialize(*case_files(protos.add_field)))


def case_files(add_field: Callable[..., None]) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """The message of the cases; and the part of it in proto2 that the cases use."""
    declared = QUERIES["messages"]["Proto3Message"]
    oneofs = {m: name for name, members in QUERIES["messages"]["oneofs"].items() for m in members}
    file = descriptor_pb2.FileDescriptorProto(name="c3.proto", package=PACKAGE, syntax="proto3")
    file.dependency.extend(f"google/protobuf/{each}.proto" for each in (
        *("timestamp", "duration", "field_mask", "wrappers", "struct"),
    ))  # fmt: skip
    enum = file.enum_type.add(name="EnumValue")
    for name, number in QUERIES["messages"]["EnumValue"].items():
        enum.value.add(name=name, number=number)
    message = file.message_type.add(name="Proto3Message")
    for real in QUERIES["messages"]["oneofs"]:
        message.oneof_decl.add(name=real)
    for kind, name, number in declared:
        add_field(
            message, f"{kind} {name}", int(number), package=PACKAGE, oneof=oneofs.get(name, "")
        )
    yield file
    old = descriptor_pb2.FileDescriptorProto(name="c2.proto", package=PACKAGE, syntax="proto2")
    message = old.message_type.add(name="Proto2Message")
    for kind, name, number in declared:
        if kind.split()[-1] in (
            "float",
            "double",
            "int64",
            "int32",
            "uint64",
            "uint32",
            "bool",
            "string",
        ):
            add_field(
                message, f"{kind.removeprefix('optional ')} {name}", int(number), package=PACKAGE
            )
    yield old


def test_queries(schema: Schema):
    def agrees(case: dict[str, Any]) -> bool:
        message = schema.message(f"{PACKAGE}.{case['message']}")
        bound = [
            resolve(message, n.split(".")) for n in case.get("already_bound_by_path_or_body", ())
        ]
        one = bound[0] if len(bound) == 1 else None
        binder = QueryBinder(
            message,
            path=[] if one else bound,
            body=one,
            parser=lambda kind: schema.codec(kind.full_name).parse,
        )
        try:
            wire = binder.to_wire(case["query"])
        except rpc.InvalidArgument as error:
            return case["expect"] == "error" and len(error.violations) == 1
        made = message_factory.GetMessageClass(message).FromString(wire)
        return json_format.MessageToDict(made) == case["expect"]

    cases = QUERIES["cases"]
    assert len(cases) == 36
    assert differing("query", cases, agrees) == of_section("query")


def test_every_listed_case_exists():
    sections = ("pattern_match", "mux", "template_parse", "query")
    assert listed() == set().union(*(of_section(section) for section in sections))
