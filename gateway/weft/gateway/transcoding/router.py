"""Finds what serves a request by its method and path.

A router is an immutable snapshot: a change makes a new one, and swapping it in is one assignment.

Which template wins, where several match: a literal before `*` before `**`, segment by segment from the
left; the longest custom verb. A colon in a path begins a verb only if some template has that verb;
otherwise it is part of the last segment. A template with no wildcard that equals the path wins at once.
An empty segment matches neither a literal nor `*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from weft import rpc
from weft.gateway.transcoding import percent
from weft.gateway.transcoding.template import Template, Wildcard

T = TypeVar("T")
ANY_METHOD = "*"

# A verb, and the segments without it: raw, and decoded where that is possible.
_Reading = tuple[str, list[str], Sequence[str | None]]
_SHOWN = 200  # characters of a path repeated in an error


class MethodNotAllowed(rpc.Unimplemented):
    """The path is served, by other HTTP methods. `allow` lists them."""

    reason = "METHOD_NOT_ALLOWED"
    http_status: ClassVar[int] = 405

    def __init__(self, method: str, path: str, allow: Iterable[str]) -> None:
        self.allow = tuple(sorted(allow))
        listed = ", ".join(self.allow)
        super().__init__(
            f"{method[:20]} is not served at {path[:_SHOWN]}; use {listed}.",
            metadata={"allow": listed},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(Generic[T]):
    """A template, the HTTP method it stands for ("*": any), and what serves it."""

    http_method: str
    template: Template
    target: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict(Generic[T]):
    """Two routes for one method and template; the one that came later is not served."""

    kept: Route[T]
    dropped: Route[T]


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """What serves a request, and the decoded values of the template's variables in their order."""

    target: T
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _End(Generic[T]):
    target: T
    captures: tuple[tuple[str, slice, bool], ...]


@dataclass(slots=True)
class _Node(Generic[T]):
    literals: dict[str, _Node[T]] = field(default_factory=dict)
    star: _Node[T] | None = None
    # What follows `**`, by how many segments that is: `**` takes all but those.
    deep: dict[int, _Node[T]] = field(default_factory=dict)
    ends: dict[str, dict[str, _End[T]]] = field(default_factory=dict)  # verb, then HTTP method


class Router(Generic[T]):
    """Routes, ready to match. `conflicts` are routes that were left out."""

    def __init__(self, routes: Iterable[Route[T]] = ()) -> None:
        self._root: _Node[T] = _Node()
        self._static: dict[str, dict[str, Match[T]]] = {}
        self._verbs: set[str] = set()
        self._kept: dict[tuple[str, object], Route[T]] = {}
        conflicts = [conflict for route in routes if (conflict := self._add(route))]
        self.conflicts: tuple[Conflict[T], ...] = tuple(conflicts)
        self.routes: tuple[Route[T], ...] = tuple(self._kept.values())

    def match(self, method: str, path: str) -> Match[T]:
        """Finds the route of a request.

        Args:
            method: HTTP method, upper case.
            path: Path of the request target without its query, not decoded (see `percent`).

        Raises:
            rpc.NotFound: nothing is served there.
            MethodNotAllowed: only other methods are.
            rpc.InvalidArgument: the path is none, or a variable is not UTF-8; names the variable.
        """
        static = self._static.get(path)
        if static is not None:
            found = static.get(method) or static.get(ANY_METHOD)
            if found is not None:
                return found
        if not path.startswith("/"):
            raise rpc.InvalidArgument("the path does not begin with '/'")
        segments = path[1:].split("/") if len(path) > 1 else []
        encoded = "%" in path or not path.isascii()
        decoded = [_literal(each) for each in segments] if encoded else segments
        readings: list[_Reading] = [("", segments, decoded)]
        if self._verbs and segments and ":" in segments[-1]:
            readings = list(self._readings(segments, decoded))
        for verb, raw, plain in readings:
            end = _find(self._root, plain, 0, verb, method)
            if end is not None:
                return Match(end.target, _values(end, raw))
        ends = (e for verb, _, plain in readings for e in _ends(self._root, plain, 0, verb))
        if allow := {each for end in ends for each in end}:
            raise MethodNotAllowed(method, path, allow)
        raise rpc.NotFound(f"nothing is served at {path[:_SHOWN]}")

    def _add(self, route: Route[T]) -> Conflict[T] | None:
        template = route.template
        key = (route.http_method, template.shape)
        if (kept := self._kept.setdefault(key, route)) is not route:
            return Conflict(kept=kept, dropped=route)
        node = self._root
        for index, segment in enumerate(template.segments):
            if segment is Wildcard.ONE:
                node.star = node = node.star or _Node()
            elif segment is Wildcard.MANY:
                tail = len(template.segments) - index - 1
                node.deep.setdefault(tail, _Node())
                node.deep = dict(sorted(node.deep.items(), reverse=True))
                node = node.deep[tail]
            else:
                node = node.literals.setdefault(segment, _Node())
        captures = tuple(
            (variable.name, where, variable.single)
            for variable, where in zip(template.variables, template.slices(), strict=True)
        )
        node.ends.setdefault(template.verb, {})[route.http_method] = _End(route.target, captures)
        if template.verb:
            self._verbs.add(template.verb)
        if "*" not in template.text and "{" not in template.text and "%" not in template.text:
            match = Match(route.target, ())
            self._static.setdefault(template.text, {})[route.http_method] = match
        return None

    def _readings(self, raw: list[str], decoded: Sequence[str | None]) -> Iterator[_Reading]:
        """Each way to read the last segment, longest verb first."""
        head, colon, rest = raw[-1].partition(":")
        while colon:
            verb = _literal(rest)
            if verb in self._verbs:
                yield verb, [*raw[:-1], head], [*decoded[:-1], _literal(head)]
            more, colon, rest = rest.partition(":")
            head = f"{head}:{more}"
        yield "", raw, decoded


def _literal(segment: str) -> str | None:
    """The text to compare with literals; None: it equals none, since it cannot be decoded."""
    try:
        return percent.decode(segment)
    except ValueError:
        return None


def _steps(node: _Node[T], segments: Sequence[str | None], at: int) -> list[tuple[_Node[T], int]]:
    """Where the segment at `at` leads to, best first: nodes, and where each goes on."""
    steps: list[tuple[_Node[T], int]] = []
    left = len(segments) - at
    if left:
        segment = segments[at]
        if segment is not None and (child := node.literals.get(segment)) is not None:
            steps.append((child, at + 1))
        if node.star is not None and segment != "":
            steps.append((node.star, at + 1))
    if node.deep:
        steps += ((child, at + left - tail) for tail, child in node.deep.items() if tail <= left)
    return steps


def _find(
    node: _Node[T], segments: Sequence[str | None], at: int, verb: str, method: str
) -> _End[T] | None:
    """The best end for a method that the segments from `at` on lead to."""
    if at == len(segments) and (ends := node.ends.get(verb)) is not None:
        end = ends.get(method) or ends.get(ANY_METHOD)
        if end is not None:
            return end
    for child, after in _steps(node, segments, at):
        found = _find(child, segments, after, verb, method)
        if found is not None:
            return found
    return None


def _ends(
    node: _Node[T], segments: Sequence[str | None], at: int, verb: str
) -> Iterator[dict[str, _End[T]]]:
    """All ends that the segments from `at` on lead to, by method: what a 405 tells."""
    if at == len(segments) and (found := node.ends.get(verb)) is not None:
        yield found
    for child, after in _steps(node, segments, at):
        yield from _ends(child, segments, after, verb)


def _values(end: _End[T], segments: list[str]) -> tuple[str, ...]:
    values: list[str] = []
    for name, where, single in end.captures:
        raw = "/".join(segments[where])
        try:
            values.append(percent.decode(raw) if single else percent.decode_except_slash(raw))
        except ValueError as failed:
            raise rpc.InvalidArgument(f"path variable {name!r} {failed}", field=name) from None
    return tuple(values)
