from __future__ import annotations

import pytest

from weft.agents import filling
from weft.agents.filling import Unfit


def finding(**further):
    return {
        "summary": "it leaks",
        "severity": "SEVERITY_HIGH",
        "byte_offset": "7",
        "labels": [],
        "code": "AB-1",
        **further,
    }


def faults(kind, value) -> dict[str, str]:
    with pytest.raises(Unfit) as failed:
        filling.read(kind, value)
    return dict(failed.value.faults)


def test_all_faults_are_told_by_their_paths(lab) -> None:
    wrong = {"findings": [finding(byte_offset=1.5), finding(severity="BAD", labels=[1], extra=0)]}
    assert faults(lab.Report, wrong) == {
        "$.findings[0].byte_offset": "must be an integer as a decimal string, not 1.5",
        "$.findings[1].severity": "must be one of SEVERITY_LOW, SEVERITY_HIGH, SEVERITY_VERY_HIGH, "
        'SEVERITY_NEGATIVE, not "BAD"',
        "$.findings[1].labels[0]": "must be a string, not 1",
        "$.findings[1].extra": "there is no such field",
    }


def test_what_was_not_said_is_no_zero(lab) -> None:
    wrong = {"labels": []}
    assert faults(lab.Finding, wrong) == {
        "$.summary": "is missing",
        "$.severity": "is missing",
        "$.byte_offset": "is missing",
        "$.code": "is missing",
    }
    assert faults(lab.Finding, finding(summary="")) == {"$.summary": "must not be empty"}
    assert faults(lab.Report, {"findings": []}) == {"$.findings": "must not be empty"}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (9007199254740992.0, "must be an integer"),
        ("9223372036854775808", "must be from"),
        (True, "must be an integer"),
        ("1e3", "must be an integer"),
        (-1, "must be at least 0"),
    ],
)
def test_64_bit_integers_lose_nothing(lab, value, told) -> None:
    assert told in faults(lab.Finding, finding(byte_offset=value))["$.byte_offset"]
    assert filling.read(lab.Finding, finding(byte_offset=9007199254740993)).byte_offset == (
        9007199254740993
    )


@pytest.mark.parametrize("said", ["HIGH", "high", "severity_high", "Severity-High", " High "])
def test_enum_names_may_be_said_as_people_say_them(lab, said) -> None:
    assert filling.read(lab.Finding, finding(severity=said)).severity == 2


@pytest.mark.parametrize("said", ["", "UNSPECIFIED", "SEVERITY_UNSPECIFIED", "H", 2, "VERY"])
def test_other_enum_names_are_refused(lab, said) -> None:
    assert "must be one of" in faults(lab.Finding, finding(severity=said))["$.severity"]


def test_a_oneof_has_one_member(lab) -> None:
    read = filling.read
    assert read(lab.Finding, finding(place={"file": "a"})).file == "a"
    assert read(lab.Finding, finding(place={"file": None, "line": 3})).line == 3
    assert read(lab.Finding, finding(line=3)).line == 3
    assert read(lab.Finding, finding(place=None)).WhichOneof("place") is None
    assert faults(lab.Finding, finding(place={"file": "a", "line": 3})) == {
        "$.place": "only one may be there, not file, line"
    }
    assert faults(lab.Finding, finding(place={"column": 3})) == {
        "$.place.column": "there is no such field"
    }
    assert "$.place" in faults(lab.Finding, finding(place="a"))


def test_a_map_has_each_key_once(lab) -> None:
    def by_string(value):
        return dict.fromkeys(_NUMBERS, 0) | _OTHERS | {"by_string": value}

    read = filling.read(lab.Everything, by_string([{"key": "a", "value": "b"}]))
    assert read.by_string == {"a": "b"}
    assert filling.read(lab.Everything, by_string({"a": "b"})).by_string == {"a": "b"}
    twice = [{"key": "a", "value": "b"}] * 2
    assert faults(lab.Everything, by_string(twice)) == {"$.by_string[1].key": '"a" is there twice'}
    assert "$.by_string[0]" in faults(lab.Everything, by_string([{"key": "a"}]))
    assert "$.by_string" in faults(lab.Everything, by_string("a"))
    by_bool = by_string({}) | {"by_bool": [{"key": [], "value": "LOW"}]}
    assert faults(lab.Everything, by_bool) == {
        "$.by_bool[0].key": "must be true or false, not an array"
    }


_NUMBERS = (
    *("a_double", "a_float", "an_int32", "an_int64", "a_uint32", "a_uint64", "a_sint32"),
    *("a_sint64", "a_fixed32", "a_fixed64", "an_sfixed32", "an_sfixed64"),
)
_OTHERS = {"a_bool": False, "a_string": "", "some_bytes": "", "mode": "OFF", "jsonNamed": ""}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time", "2026-01-01"),
        ("time", "2026-01-01T00:00:00"),
        ("time", 5),
        ("span", "PT90S"),
        ("span", "90"),
        ("free", "[1]"),
        ("free", "not json"),
        ("list", '{"a": 1}'),
        ("free", '{"a": NaN}'),
        ("list", "[1e999]"),
        ("value", "-Infinity"),
        ("some_bytes", "%%%"),
        ("a_string", "\ud800"),
        ("a_float", 1e39),
        ("a_double", 10**400),
        ("a_double", "1"),
        ("a_uint32", -1),
        ("an_int32", 2**31),
        ("a_bool", "true"),
        ("child", []),
        ("points", {}),
        ("whatever", {"@type": "x"}),
        ("int64_value", 1.0),
    ],
)
def test_what_does_not_fit_is_told_where_it_is(lab, field, value) -> None:
    given = dict.fromkeys(_NUMBERS, 0) | _OTHERS | {field: value}
    assert list(faults(lab.Everything, given)) == [f"$.{field}"]


def test_the_deepest_nesting_is_an_error_like_others(lab) -> None:
    base = dict.fromkeys(_NUMBERS, 0) | _OTHERS
    value = base
    for _ in range(100):
        value = base | {"child": value}
    assert "is nested too deeply" in faults(lab.Everything, value).values()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Here it is:\n```json\n{"a": 1}\n```\nAnything else?', {"a": 1}),
        ('Here it is: {"a": 1} as you wanted.', {"a": 1}),
        ("[1]", [1]),
    ],
)
def test_json_is_found_in_what_a_model_said(text, value) -> None:
    assert filling.json_of(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "I cannot.", '{"a": ', '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": 1} {"a": 2}', "[" * 9999],
)
def test_what_is_no_json_is_told(text) -> None:
    with pytest.raises(Unfit) as failed:
        filling.json_of(text)
    assert failed.value.faults[0][0] == "$"
