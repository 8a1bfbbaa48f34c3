from __future__ import annotations

import pytest

from weft import rpc
from weft.gateway.transcoding.router import MethodNotAllowed, Route, Router
from weft.gateway.transcoding.template import parse


def router(*rules: str) -> Router[str]:
    """A router of rules such as "GET /v1/{a}", each leading to itself."""
    pairs = (rule.split(" ", 1) for rule in rules)
    return Router(
        Route(http_method=method, template=parse(text), target=f"{method} {text}")
        for method, text in pairs
    )


def found(made: Router[str], method: str, path: str) -> tuple[str, tuple[str, ...]]:
    match = made.match(method, path)
    return match.target.partition(" ")[2], match.values


def test_a_literal_wins_over_one_segment_over_many():
    made = router("GET /a/**", "GET /a/{x}", "GET /a/b", "GET /{x=**}")
    assert found(made, "GET", "/a/b") == ("/a/b", ())
    assert found(made, "GET", "/a/c") == ("/a/{x}", ("c",))
    assert found(made, "GET", "/a/c/d") == ("/a/**", ())
    assert found(made, "GET", "/b") == ("/{x=**}", ("b",))


def test_a_dead_end_is_left_again():
    made = router("GET /a/b/c", "GET /a/{x}/d", "GET /{all=**}")
    assert found(made, "GET", "/a/b/d") == ("/a/{x}/d", ("b",))
    assert found(made, "GET", "/a/b/e") == ("/{all=**}", ("a/b/e",))


def test_a_route_of_another_method_is_no_obstacle():
    made = router("POST /a/b", "GET /a/{x}")
    assert found(made, "GET", "/a/b") == ("/a/{x}", ("b",))


def test_the_longest_registered_verb_wins():
    made = router("GET /a/{x}", "GET /a/{x}:v", "GET /a/{x}:u:v")
    assert found(made, "GET", "/a/1:u:v") == ("/a/{x}:u:v", ("1",))
    assert found(made, "GET", "/a/1:w:v") == ("/a/{x}:v", ("1:w",))
    assert found(made, "GET", "/a/1:w") == ("/a/{x}", ("1:w",))
    assert found(made, "GET", "/a/1%3Av") == ("/a/{x}", ("1:v",))


def test_many_segments_before_a_tail():
    made = router("GET /a/{x=**}/tail", "GET /a/{x=**}/long/tail", "GET /a/{x=**}:v")
    assert found(made, "GET", "/a/b/c/tail") == ("/a/{x=**}/tail", ("b/c",))
    assert found(made, "GET", "/a/tail") == ("/a/{x=**}/tail", ("",))
    assert found(made, "GET", "/a/b/long/tail") == ("/a/{x=**}/long/tail", ("b",))
    assert found(made, "GET", "/a/b/c:v") == ("/a/{x=**}:v", ("b/c",))


def test_percent_escapes_of_one_and_of_many_segments():
    made = router("GET /one/{x}", "GET /many/{x=**}", "GET /part/{x=a/*}")
    assert found(made, "GET", "/one/a%2Fb%20c+d") == ("/one/{x}", ("a/b c+d",))
    assert found(made, "GET", "/many/a%2Fb/%63%2f%E2%82%AC") == ("/many/{x=**}", ("a%2Fb/c%2f€",))
    assert found(made, "GET", "/part/a/b%2fc%25") == ("/part/{x=a/*}", ("a/b%2fc%",))
    assert found(made, "GET", "/%6fne/x")[0] == "/one/{x}"
    assert found(made, "GET", "/one/" + "é".encode().decode("latin-1"))[1] == ("é",)


@pytest.mark.parametrize("text", ["%FF", "%C3", "%4", "%zz", "a%"])
def test_a_variable_that_cannot_be_decoded_is_named(text):
    for template in ("/v1/{book}", "/v1/{book=**}"):
        with pytest.raises(rpc.InvalidArgument) as caught:
            router(f"GET {template}").match("GET", f"/v1/{text}")
        assert caught.value.violations[0][0] == "book"


def test_no_segment_is_empty_but_below_many():
    made = router("GET /a/{x}", "GET /b/{x=**}")
    for path in ("/a/", "/a", "//a/x", "/a/x/"):
        with pytest.raises(rpc.NotFound):
            made.match("GET", path)
    assert found(made, "GET", "/b//c/")[1] == ("/c/",)


def test_other_methods_are_told():
    made = router("GET /a/{x}", "DELETE /a/{x}", "PUT /a/b", "POST /a/{x}:v")
    with pytest.raises(MethodNotAllowed) as caught:
        made.match("PATCH", "/a/b")
    assert caught.value.allow == ("DELETE", "GET", "PUT")
    with pytest.raises(MethodNotAllowed) as caught:
        made.match("POST", "/a/b")
    assert caught.value.metadata == {"allow": "DELETE, GET, PUT"}


def test_custom_methods():
    made = router("HEAD /a", "* /b/{x}", "GET /b/{x}")
    assert made.match("HEAD", "/a").target == "HEAD /a"
    assert made.match("GET", "/b/1").target == "GET /b/{x}"
    assert made.match("PURGE", "/b/1").target == "* /b/{x}"


def test_the_second_of_two_equal_routes_is_reported():
    made = router("GET /a/{x}", "GET /a/{y=*}", "POST /a/{y}")
    assert [(c.kept.target, c.dropped.target) for c in made.conflicts] == [
        ("GET /a/{x}", "GET /a/{y=*}")
    ]
    assert len(made.routes) == 2


def test_a_path_without_slash_is_an_error_of_the_caller():
    with pytest.raises(rpc.InvalidArgument):
        router("GET /a").match("GET", "a")


def test_many_routes_and_hostile_paths_are_found_fast():
    rules = [f"GET /v1/{kind}{n}/{{x}}/{{y=**}}" for kind in "ab" for n in range(500)]
    made = router(*rules, "GET /{a}/{b}/{c}/{d}/{e}/{f}/{g}/end", "GET /{a=**}/end")
    assert found(made, "GET", "/v1/b499/1/2/3") == ("/v1/b499/{x}/{y=**}", ("1", "2/3"))
    with pytest.raises(rpc.NotFound):
        made.match("GET", "/" + "x/" * 5_000)
    with pytest.raises(rpc.NotFound):
        made.match("GET", "/x" + ":v" * 5_000)
