"""Page tokens: bound to their list, and nothing but INVALID_ARGUMENT for what is none."""

from __future__ import annotations

import base64
import json

import pytest

from weft import rpc
from weft.rpc import paging

LIST = "runs of ann"


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def test_a_token_leads_to_the_next_page():
    token = paging.page_token((7, "ann", 0.5), made_for=LIST)
    assert paging.page_begin(token, made_for=LIST, like=(0, "", 0.0)) == (7, "ann", 0.5)
    assert paging.page_begin("", made_for=LIST, like=(0,)) is None


@pytest.mark.parametrize(
    ("token", "like"),
    [
        ("x", (0,)),
        ("\u0663===", (0,)),
        (encoded("[" * 100_000), (0,)),
        (encoded("[]"), (0,)),
        (encoded("null"), (0,)),
        (encoded('{"runs of ann": 1}'), (0,)),
        (encoded(json.dumps(["runs of bob", 7])), (0,)),
        (encoded(json.dumps([LIST, True])), (0,)),
        (encoded(json.dumps([LIST, 7, 7])), (0,)),
        (encoded(json.dumps([LIST, 1 << 63])), (0,)),
        (encoded(json.dumps([LIST, -(10**30)])), (0,)),
        (encoded(json.dumps([LIST, "a\0b"])), ("",)),
    ],
)
def test_what_is_no_token_is_refused_by_its_field(token, like):
    with pytest.raises(rpc.InvalidArgument) as refused:
        paging.page_begin(token, made_for=LIST, like=like)
    assert [field for field, _ in refused.value.violations] == ["page_token"]
