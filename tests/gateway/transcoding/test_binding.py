from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from weft import rpc
from weft.gateway.transcoding.binding import Binding, BindingError
from weft.gateway.transcoding.schema import Schema

Bind = Callable[..., list[Binding]]


@pytest.fixture
def ask(bind: Bind, kinds: Schema):
    """What a request means, as JSON of the message it makes."""

    def make(
        rule: dict[str, Any], path: Sequence[str] = (), query: str = "", body: str | bytes = b""
    ) -> Any:
        binding = bind(**rule)[0]
        raw = body.encode() if isinstance(body, str) else body
        return json.loads(kinds.codec("kinds.Kinds").to_json(binding.request(path, query, raw)))

    return make


def violation(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(rpc.InvalidArgument) as caught:
        call()
    return caught.value.violations[0]


# Bodies


def test_the_whole_body_is_the_request(ask):
    rule = {"post": "/v1/x", "body": "*"}
    assert ask(rule, body='{"stringOne": "a", "child": {"int32One": 3}}') == {
        "stringOne": "a",
        "child": {"int32One": 3},
    }
    assert ask(rule, body=b"") == {}
    assert violation(lambda: ask(rule, query="string_one=a"))[0] == "string_one"


def test_a_body_alone_is_one_call_of_the_codec(bind: Bind):
    binding = bind(post="/v1/x", body="*")[0]
    codec_call = binding._whole
    assert codec_call is not None
    assert codec_call.__name__ == "to_wire"


def test_the_path_wins_over_the_body_whatever_its_value(ask):
    rule = {"post": "/v1/{int32_one}/{child.string_one}/{string_maybe=**}", "body": "*"}
    body = '{"int32One": 7, "stringMaybe": "b", "child": {"stringOne": "b", "boolOne": true}}'
    assert ask(rule, ("0", "p", ""), body=body) == {
        "stringMaybe": "",
        "child": {"stringOne": "p", "boolOne": True},
    }


def test_the_path_wins_over_another_member_of_its_oneof(ask):
    rule = {"post": "/v1/{either}", "body": "*"}
    assert ask(rule, ("p",), body='{"orChild": {"int32One": 1}}') == {"either": "p"}


def test_a_field_is_the_body(ask):
    rule = {"patch": "/v1/{child.string_one}", "body": "child"}
    body = '{"stringOne": "b", "int32One": 1}'
    assert ask(rule, ("p",), "bool_one=true", body) == {
        "boolOne": True,
        "child": {"stringOne": "p", "int32One": 1},
    }
    assert ask(rule, ("p",), body="{}") == {"child": {"stringOne": "p"}}
    assert violation(lambda: ask(rule, ("p",), "child.int32_one=1", body))[0] == "child.int32_one"
    assert violation(lambda: ask(rule, ("p",), body='{"nope": 1}'))[0] == "child.nope"


@pytest.mark.parametrize(
    ("field", "body", "name"),
    [
        ("children", '[{"int32One": 1}, {}]', "children"),
        ("string_many", '["a", "b"]', "stringMany"),
        ("string_by_name", '{"a": "b"}', "stringByName"),
        ("timestamp", '"2026-01-31T12:00:00Z"', "timestamp"),
        ("int64_one", '"5"', "int64One"),
        ("value", "[1.5]", "value"),
    ],
)
def test_a_list_a_map_or_a_value_is_the_body(ask, field: str, body: str, name: str):
    rule = {"post": "/v1/x", "body": field}
    assert ask(rule, body=body) == {name: json.loads(body)}
    with pytest.raises(rpc.InvalidArgument):
        ask(rule, body=body + ', "stringOne": "smuggled"')
    with pytest.raises(rpc.InvalidArgument):
        ask(rule, body="[" * 100_000)


def test_faults_in_a_list_body_are_named(ask):
    rule = {"post": "/v1/x", "body": "children"}
    assert violation(lambda: ask(rule, body='[{}, {"nope": 1}]'))[0] == "children[1].nope"


def test_a_rule_without_body_takes_none(ask):
    assert violation(lambda: ask({"get": "/v1/x"}, body="{}"))[0] == "body"


# Paths


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("string_one", "a/b €", "a/b €"),
        ("int32_one", "-5", -5),
        ("sint32_one", "-2147483648", -2147483648),
        ("sint64_one", "-9223372036854775808", "-9223372036854775808"),
        ("uint64_one", "18446744073709551615", "18446744073709551615"),
        ("int64_one", "-1", "-1"),
        ("fixed32_one", "4294967295", 4294967295),
        ("sfixed32_one", "-1", -1),
        ("sfixed64_one", "-7", "-7"),
        ("fixed64_one", "7", "7"),
        ("bool_one", "true", True),
        ("float_one", "1.5", 1.5),
        ("double_one", "-1e300", -1e300),
        ("double_one", "Infinity", "Infinity"),
        ("color", "GREEN", "GREEN"),
        ("color", "-1", "MINUS"),
        ("color", "77", 77),
        ("bytes_one", "_-8", "/+8="),
        ("bytes_one", "/+8=", "/+8="),
    ],
)
def test_every_primitive_can_stand_in_a_path_and_a_query(ask, field: str, text: str, value: Any):
    name = "".join(part.title() if n else part for n, part in enumerate(field.split("_")))
    assert ask({"get": f"/v1/{{{field}}}"}, (text,)) == {name: value}
    escaped = text.replace("+", "%2B").replace("&", "%26")
    raw = escaped.encode().decode("latin-1")
    assert ask({"get": "/v1/x"}, query=f"{field}={raw}") == {name: value}
    assert ask({"get": "/v1/x"}, query=f"{name}={raw}") == {name: value}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("int32_one", "2147483648"),
        ("int32_one", "1.0"),
        ("int32_one", ""),
        ("int32_one", " 1"),
        ("int32_one", "1_000"),
        ("int32_one", "٣"),
        ("int64_one", "9" * 5_000),
        ("uint32_one", "-1"),
        ("bool_one", "yes"),
        ("bool_one", "1"),
        ("float_one", "1e39"),
        ("double_one", "1e400"),
        ("double_one", "nan"),
        ("double_one", "0x10"),
        ("double_one", "1" * 500),
        ("color", "BLUE"),
        ("color", "green"),
        ("color", "3000000000"),
        ("bytes_one", "@@"),
        ("bytes_one", "a"),
    ],
)
def test_text_that_does_not_fit_is_refused(ask, field: str, text: str):
    path, problem = violation(lambda: ask({"get": f"/v1/{{{field}}}"}, (text,)))
    assert path == field
    assert problem.startswith("expects ")
    raw = text.encode().decode("latin-1")
    assert violation(lambda: ask({"get": "/v1/x"}, query=f"{field}={raw}")) == (path, problem)


# Queries


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("int32_many=1&int32_many=2&int32_many=0", {"int32Many": [1, 2, 0]}),
        ("stringMany=a&string_many=", {"stringMany": ["a", ""]}),
        ("colors=RED&colors=2", {"colors": ["RED", "GREEN"]}),
        ("child.child.string_one=a&child.int32One=1", {"child": {"child": {"stringOne": "a"}, "int32One": 1}}),
        ("child.int32_many=1&child.int32_many=2", {"child": {"int32Many": [1, 2]}}),
        ("orChild.int32_one=1&orChild.boolOne=true", {"orChild": {"int32One": 1, "boolOne": True}}),
        ("timestamp=2026-01-31T12:00:00.5Z", {"timestamp": "2026-01-31T12:00:00.500Z"}),
        ("duration=1.5s", {"duration": "1.500s"}),
        ("fieldmask=a.b,user_name,cD", {"fieldmask": "a.b,userName,cD"}),
        ("int64value=5&stringvalue=x&boolvalue=false", {"int64value": "5", "stringvalue": "x", "boolvalue": False}),
        ("bytesvalue=_-8&doublevalue=1.5", {"bytesvalue": "/+8=", "doublevalue": 1.5}),
        ("struct=%7B%22a%22:[1.5]%7D&value=null&listvalue=[]", {"struct": {"a": [1.5]}, "value": None, "listvalue": []}),
        ("string_one=a+b%20c%2B&&", {"stringOne": "a b c+"}),
        ("string_one=100%", {"stringOne": "100%"}),
        ("string_one", {}),
        ("string_maybe", {"stringMaybe": ""}),
        ("string_one=a=b", {"stringOne": "a=b"}),
        ("child.timestamp=1970-01-01T00:00:00Z", {"child": {"timestamp": "1970-01-01T00:00:00Z"}}),
    ],
)  # fmt: skip
def test_queries_are_understood(ask, query: str, expected: Any):
    assert ask({"get": "/v1/x"}, query=query) == expected


@pytest.mark.parametrize(
    ("query", "name", "problem"),
    [
        ("nope=1", "nope", "no field 'nope'"),
        ("$fields=a", "$fields", "not a parameter"),
        ("child.nope=1", "child.nope", "kinds.Kinds has no field 'nope'"),
        ("=1", "", "not a parameter"),
        ("child..int32_one=1", "child..int32_one", "not a parameter"),
        ("string_one.x=1", "string_one.x", "has no fields of its own"),
        ("timestamp.seconds=1", "timestamp.seconds", "has no fields of its own"),
        ("child=1", "child", "give its fields"),
        ("empty=1", "empty", "is a message"),
        ("any=1", "any", "is a message"),
        ("children.int32_one=1", "children.int32_one", "has no fields of its own"),
        ("children=1", "children", "list of messages"),
        ("int64value_list=1", "int64value_list", "list of messages"),
        ("string_by_name=1", "string_by_name", "a map"),
        ("string_by_name[a]=1", "string_by_name[a]", "not a parameter"),
        ("string_one=a&stringOne=b", "stringOne", "twice"),
        ("child.color=1&child.color=1", "child.color", "twice"),
        ("either=a&or_number=1", "or_number", "oneof 'choice'"),
        ("orChild.int32_one=1&or_number=1", "or_number", "oneof 'choice'"),
        ("child.either=a&child.orNumber=1", "child.orNumber", "oneof 'choice'"),
        ("timestamp=null", "timestamp", "expects an RFC 3339 time"),
        ("duration=1m", "duration", "expects seconds"),
        ("struct=1", "struct", "expects an object"),
        ("value=a", "value", "expects a JSON value"),
        ("value=" + "[" * 50_000, "value", "expects a JSON value"),
        ("boolvalue=null", "boolvalue", "expects true or false"),
        ("string_one=%FF", "string_one", "not UTF-8"),
        ("%FF=a", "%FF", "not UTF-8"),
        (".".join(["child"] * 40) + ".int32_one=1", "child.child", "more than 32"),
    ],
)
def test_parameters_that_do_not_fit_are_named(ask, query: str, name: str, problem: str):
    found, text = violation(lambda: ask({"get": "/v1/x"}, query=query))
    assert found.startswith(name)
    assert problem in text


@pytest.mark.parametrize(
    "query", ["string_one=evil", "stringOne=evil", "child.int32_one=1", "%73tring_one=evil"]
)
def test_a_query_never_overrides_the_path(ask, query: str):
    rule = {"get": "/v1/{string_one}/{child.int32_one}"}
    name, problem = violation(lambda: ask(rule, ("p", "7"), query))
    assert name in query.replace("%73", "s")
    assert "bound by the path" in problem
    assert ask(rule, ("p", "7"), "child.bool_one=true") == {
        "stringOne": "p",
        "child": {"int32One": 7, "boolOne": True},
    }


def test_a_query_may_not_set_another_member_of_a_bound_oneof(ask):
    assert violation(lambda: ask({"get": "/v1/{either}"}, ("p",), "or_number=1"))[0] == "or_number"
    rule = {"post": "/v1/x", "body": "or_child"}
    assert violation(lambda: ask(rule, query="either=a", body="{}"))[0] == "either"


# Replies


def test_a_reply_is_the_message_or_the_field_that_the_rule_names(bind: Bind, kinds: Schema):
    reply = kinds.codec("kinds.Kinds").to_wire(
        b'{"child": {"stringOne": "a"}, "stringMany": ["b"], "int64One": 5, "boolMaybe": false,'
        b' "timestamp": "1970-01-01T00:00:00Z", "doubleOne": 2.5, "fixed32One": 1}'
    )
    expected = {
        "child": {"stringOne": "a"},
        "string_many": ["b"],
        "int64_one": "5",
        "bool_maybe": False,
        "timestamp": "1970-01-01T00:00:00Z",
        "uint32_one": 0,
        "children": [],
        "int32_maybe": None,
        "or_child": {},
    }
    for field, value in expected.items():
        assert json.loads(bind(get="/x", response_body=field)[0].response(reply)) == value
    assert json.loads(bind(get="/x")[0].response(reply))["child"] == {"stringOne": "a"}


def test_parts_of_a_reply_are_merged(bind: Bind, kinds: Schema):
    codec = kinds.codec("kinds.Kinds")
    reply = codec.to_wire(b'{"child": {"stringOne": "a"}}') + codec.to_wire(
        b'{"child": {"color": 1}}'
    )
    part = bind(get="/x", response_body="child")[0].response(reply)
    assert json.loads(part) == {"stringOne": "a", "color": "RED"}


@pytest.mark.parametrize("wire", [b"\xff", b"\x0a\x05a", b"\x0b\x0c", b"\x08" + b"\xff" * 11])
@pytest.mark.parametrize("field", ["", "child", "string_many"])
def test_a_damaged_reply_is_an_internal_error(bind: Bind, wire: bytes, field: str):
    binding = bind(get="/x", response_body=field)[0]
    if wire == b"\x0b\x0c" and field != "child":
        return  # an unknown group, which parsers skip
    with pytest.raises(rpc.Internal):
        binding.response(wire)


# Rules


def test_additional_bindings_are_routes_of_their_own(bind: Bind):
    made = bind(
        get="/v1/{string_one}",
        additional_bindings=[
            {"post": "/v1/x:find", "body": "*"},
            {"custom": {"kind": "PURGE", "path": "/v1/x"}},
        ],
    )
    assert [(b.http_method, b.template.text, b.body) for b in made] == [
        ("GET", "/v1/{string_one}", ""),
        ("POST", "/v1/x:find", "*"),
        ("PURGE", "/v1/x", ""),
    ]


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({}, "no pattern"),
        ({"get": "v1"}, "expected '/'"),
        ({"custom": {"path": "/v1"}}, "no kind"),
        ({"get": "/v1/{nope}"}, "no field 'nope'"),
        ({"get": "/v1/{child}"}, "no message"),
        ({"get": "/v1/{timestamp}"}, "no message"),
        ({"get": "/v1/{string_many}"}, "must be a single field"),
        ({"get": "/v1/{string_by_name}"}, "must be a single field"),
        ({"get": "/v1/{children.string_one}"}, "no fields of its own"),
        ({"get": "/v1/{string_one}/{string_one}"}, "stands twice"),
        ({"get": "/v1", "body": "*"}, "GET has no body"),
        ({"post": "/v1", "body": "nope"}, "no field 'nope'"),
        ({"post": "/v1", "body": "child.child"}, "no field"),
        ({"get": "/v1", "response_body": "nope"}, "no field 'nope'"),
        ({"get": "/v1", "additional_bindings": [{"get": "/2", "additional_bindings": [{}]}]}, "nested"),
        ({"post": "/v1", "body": "*", "method": "Collect"}, "streamed requests"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_served_are_told(bind: Bind, rule: dict[str, Any], problem: str):
    with pytest.raises(BindingError, match=problem):
        bind(**rule)
