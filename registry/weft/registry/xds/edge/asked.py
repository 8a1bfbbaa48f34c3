"""What callers ask for by a header that only a gateway does: a key that makes a call once, a job, a part of the answer.

Such calls go to a gateway, whatever they call. Where there is none, a wish is not heard; but a call that must be made
once is refused, for its caller will make it again.
"""

from __future__ import annotations

from collections.abc import Iterator

from weft.xds.v1 import resources_pb2 as pb

_GRPC = r"application/grpc(?:[+;].*)?"
_WEB = "application/grpc-web(?:-text)?"
ONCE = "idempotency-key"
# Lower-case name of a header and how it asks for something, a pattern of its whole text.
_BY_ALL = ((ONCE, ".*"), ("prefer", "(?is).*respond-async.*"))
_BY_HTTP = (
    ("x-goog-fieldmask", ".*"),
    (":path", r"[^?]*\?(?:.*&)?(?:\$|%24)fields=.*"),
    ("x-request-timeout", ".*"),
    ("connect-timeout-ms", ".*"),
    ("content-encoding", ".*"),
    ("grpc-timeout", "0+[HMSmun]"),  # Envoy would say 408 of it, by chance
    ("upgrade", "(?i)websocket"),
)
_DEADLINE = "[0-9]{1,8}[HMSmun]"  # as gRPC's protocol has it


def without_sense() -> Iterator[tuple[pb.RouteMatch, bool]]:
    """Calls with a deadline that is none, of which an agent would say INTERNAL, and whether they speak gRPC."""
    wrong = pb.HeaderMatcher(name="grpc-timeout", string_match=_like(_DEADLINE), invert_match=True)
    yield _match(wrong, grpc()), True
    yield _match(wrong), False


def of_a_gateway(*, has_one: bool) -> Iterator[tuple[pb.RouteMatch, bool]]:
    """Which calls go to a gateway for what they ask, and whether they speak gRPC.

    Args:
        has_one: whether there is one; else what has to be refused.
    """
    for name, pattern in _BY_ALL if has_one else _BY_ALL[:1]:
        wish = pb.HeaderMatcher(name=name, string_match=_like(pattern))
        yield _match(wish, grpc()), True
        yield _match(wish), False
    if not has_one:
        return
    no_grpc = grpc()
    no_grpc.invert_match = no_grpc.treat_missing_header_as_empty = True
    for name, pattern in _BY_HTTP:
        wish = pb.HeaderMatcher(name=name, string_match=_like(pattern))
        yield _match(wish, no_grpc), False
    # gRPC-Web in forms that Envoy does not know, such as JSON.
    yield (
        _match(
            pb.HeaderMatcher(name="content-type", string_match=_like(_WEB + ".*")),
            pb.HeaderMatcher(
                name="content-type", string_match=_like(_WEB + r"(?:\+proto)?"), invert_match=True
            ),
        ),
        False,
    )


def grpc() -> pb.HeaderMatcher:
    """Whether a caller speaks gRPC, and not gRPC-Web."""
    return pb.HeaderMatcher(name="content-type", string_match=_like(_GRPC))


def in_another_form() -> pb.HeaderMatcher:
    """Whether a caller wants a stream otherwise than as a JSON array."""
    return pb.HeaderMatcher(
        name="accept",
        string_match=pb.StringMatcher(exact="application/json"),
        invert_match=True,
        treat_missing_header_as_empty=True,
    )


def _match(*headers: pb.HeaderMatcher) -> pb.RouteMatch:
    return pb.RouteMatch(prefix="/", headers=headers)


def _like(pattern: str) -> pb.StringMatcher:
    return pb.StringMatcher(safe_regex=pb.RegexMatcher(regex=pattern))
