"""Path templates as OpenAPI writes them.

OpenAPI knows variables of one segment only, and takes two paths that differ in the names of variables for
the same. So every wildcard becomes a variable of its own (`{name=shelves/*/books/*}` is
`shelves/{shelf}/books/{book}`), and routes of one shape share the names of the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from weft.gateway.transcoding.template import Segment, Template, Variable, Wildcard

_WORD = re.compile(r"(?!v[0-9])[A-Za-z_][A-Za-z0-9_]*")  # a version is no name for what follows it
_LITERAL_CHARACTERS = "-._~!$&'()*+,;=:@"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathParameter:
    """A variable of an OpenAPI path, and what it stands for."""

    name: str
    variable: Variable | None
    """The variable of the template that it is, or is a part of; None: a wildcard in none."""
    index: int
    """Which of the template's variables that is."""
    whole: bool
    many: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApiPath:
    """A template as OpenAPI writes it."""

    path: str
    parameters: tuple[PathParameter, ...]


class PathBook:
    """Gives templates of one shape the same path."""

    def __init__(self) -> None:
        self._names: dict[tuple[tuple[str | None, ...], str], list[str]] = {}

    def route(self, template: Template) -> OpenApiPath:
        """The path of a template."""
        literals = tuple(each if isinstance(each, str) else None for each in template.segments)
        names = self._names.setdefault((literals, template.verb), _names(template))
        parts: list[str] = []
        parameters: list[PathParameter] = []
        for at, segment in enumerate(template.segments):
            if isinstance(segment, str):
                parts.append(quote(segment, safe=_LITERAL_CHARACTERS))
                continue
            name = names[len(parameters)]
            parts.append(f"{{{name}}}")
            parameters.append(_parameter(template, at, name, segment))
        verb = f":{quote(template.verb, safe=_LITERAL_CHARACTERS)}" if template.verb else ""
        return OpenApiPath(path="/" + "/".join(parts) + verb, parameters=tuple(parameters))


def _parameter(template: Template, at: int, name: str, segment: Wildcard) -> PathParameter:
    index, variable = _variable_at(template, at)
    return PathParameter(
        name=name,
        variable=variable,
        index=index,
        whole=variable is not None and variable.stop - variable.first == 1,
        many=segment is Wildcard.MANY,
    )


def _variable_at(template: Template, at: int) -> tuple[int, Variable | None]:
    for index, variable in enumerate(template.variables):
        if variable.first <= at < variable.stop:
            return index, variable
    return -1, None


def _names(template: Template) -> list[str]:
    """A name for each wildcard: the variable's own, or one made of the literal before it."""
    names: list[str] = []
    for at, segment in enumerate(template.segments):
        if isinstance(segment, str):
            continue
        _, variable = _variable_at(template, at)
        alone = variable is not None and _wildcards(template.segments, variable) == 1
        name = variable.name if variable and alone else _after(template.segments, at)
        count = 2
        unique = name
        while unique in names:
            unique, count = f"{name}_{count}", count + 1
        names.append(unique)
    return names


def _wildcards(segments: tuple[Segment, ...], variable: Variable) -> int:
    part = segments[variable.first : variable.stop]
    return sum(isinstance(segment, Wildcard) for segment in part)


def _after(segments: tuple[Segment, ...], at: int) -> str:
    """Says "shelf" after "shelves", "book" after "books", "segment" where there is no word."""
    before = segments[at - 1] if at else ""
    if not isinstance(before, str) or not _WORD.fullmatch(before):
        return "segment"
    for plural, singular in (("ies", "y"), ("lves", "lf"), ("sses", "ss"), ("s", "")):
        if before.endswith(plural) and len(before) > len(plural):
            return before.removesuffix(plural) + singular
    return before
