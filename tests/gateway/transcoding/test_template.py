from __future__ import annotations

import pytest

from weft.gateway.transcoding.template import TemplateError, Wildcard, parse


def test_a_template_is_segments_variables_and_a_verb():
    template = parse("/v1/{book.name=shelves/*/books/*}/pages/{page}:publish")
    assert template.segments == (
        *("v1", "shelves", Wildcard.ONE, "books", Wildcard.ONE, "pages", Wildcard.ONE),
    )
    assert [(v.name, v.first, v.stop, v.single) for v in template.variables] == [
        ("book.name", 1, 5, False),
        ("page", 6, 7, True),
    ]
    assert template.verb == "publish"


def test_the_root_is_a_template():
    assert parse("/").segments == ()


def test_a_variable_without_pattern_is_one_segment():
    assert parse("/{a}").shape == parse("/{b=*}").shape
    assert parse("/{a=**}").shape != parse("/{a=*}").shape
    assert not parse("/{a=**}").variables[0].single


def test_literals_are_compared_decoded():
    assert parse("/caf%C3%A9/a%2Fb").segments == ("café", "a/b")


@pytest.mark.parametrize(
    ("text", "verb", "last"),
    [
        ("/a:b", "b", "a"),
        ("/a:b:c", "c", "a:b"),
        ("/*:b:c", "b:c", Wildcard.ONE),
        ("/{a}:b:c", "b:c", Wildcard.ONE),
        ("/{a=x/y:z}", "", "y:z"),
        ("/a:b/c", "", "c"),
        ("/**:b", "b", Wildcard.MANY),
    ],
)
def test_where_the_verb_begins(text, verb, last):
    template = parse(text)
    assert template.verb == verb
    assert template.segments[-1] == last


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "expected '/'"),
        ("v1", 0, "expected '/'"),
        ("/v1/", 4, "expected a segment"),
        ("//v1", 1, "expected a segment"),
        ("/v1?x", 3, "may not stand"),
        ("/é", 1, "may not stand"),
        ("/%4", 1, "percent-escape"),
        ("/%FF", 1, "not UTF-8"),
        ("/{", 2, "field name"),
        ("/{a.}", 4, "field name"),
        ("/{a-b}", 3, "expected '}'"),
        ("/{a=}", 4, "expected a segment"),
        ("/{a={b}}", 4, "may not hold another"),
        ("/{a}b", 4, "after a variable"),
        ("/v1{a}", 3, "before a variable"),
        ("/*a", 2, "after a wildcard"),
        ("/***", 3, "after a wildcard"),
        ("/**/{a=**}", 7, "once only"),
        ("/{a}/{a}", 6, "stands twice"),
        ("/a:", 3, "expected a verb"),
        ("/{a}:", 5, "expected a verb"),
        ("/{a}:b/c", 6, "may not stand"),
        ("/a}", 2, "may not stand"),
    ],
)
def test_errors_name_the_position(text, position, problem):
    with pytest.raises(TemplateError, match=problem) as caught:
        parse(text)
    assert caught.value.position == position
