"""Path templates of google.api.http.

The grammar, as google/api/http.proto gives it:

    Template  = "/" Segments [ Verb ] ;
    Segments  = Segment { "/" Segment } ;
    Segment   = "*" | "**" | LITERAL | Variable ;
    Variable  = "{" FieldPath [ "=" Segments ] "}" ;
    FieldPath = IDENT { "." IDENT } ;
    Verb      = ":" LITERAL ;

Where it is silent: a LITERAL is made of the characters of an RFC 3986 path segment; "/" alone is a
template with no segments; the verb begins at the first colon after a variable or a wildcard, and at the
last colon of a literal segment; `**` stands at most once in a template, and may stand before its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from weft.gateway.transcoding import percent

_IDENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*")
_INNER = re.compile(r"[^/{}]*")


class TemplateError(ValueError):
    """A path template that does not follow the grammar. `position` counts characters from 0."""

    def __init__(self, message: str, *, template: str, position: int) -> None:
        self.template = template
        self.position = position
        super().__init__(f"{message} at position {position} of path template {template!r}")


class Wildcard(Enum):
    """A segment that matches any text."""

    ONE = "*"
    MANY = "**"


Segment = str | Wildcard
"""A literal, percent-decoded, or a wildcard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A part of the path that fills a field: the segments from `first` up to `stop`, exclusive."""

    path: tuple[str, ...]
    first: int
    stop: int
    single: bool
    """The pattern is one segment and not `**`: all of its percent-escapes are decoded."""

    @property
    def name(self) -> str:
        """The field path as it is written, such as "book.name"."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A parsed path template."""

    text: str
    segments: tuple[Segment, ...]
    variables: tuple[Variable, ...]
    verb: str
    """Custom verb without its colon; empty: none."""

    @property
    def deep(self) -> int | None:
        """Where `**` stands, if it does."""
        return self.segments.index(Wildcard.MANY) if Wildcard.MANY in self.segments else None

    @property
    def shape(self) -> tuple[tuple[Segment, ...], str]:
        """What it matches: equal for templates that differ in the names of variables only."""
        return self.segments, self.verb

    def slices(self) -> tuple[slice, ...]:
        """Where in the segments of a path each variable stands; counted from the end after `**`."""
        size, deep = len(self.segments), self.deep
        return tuple(
            slice(
                v.first if deep is None or v.first <= deep else v.first - size,
                v.stop if deep is None or v.stop <= deep else (v.stop - size) or None,
            )
            for v in self.variables
        )


def parse(text: str) -> Template:
    """Parses a path template.

    Raises:
        TemplateError: it does not follow the grammar, or names a variable twice.
    """
    return _Parser(text).template()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.segments: list[Segment] = []
        self.variables: list[Variable] = []
        self.verb = ""

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        at = self.position if position is None else position
        raise TemplateError(message, template=self.text, position=at)

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def accept(self, token: str) -> bool:
        if not self.text.startswith(token, self.position):
            return False
        self.position += len(token)
        return True

    def template(self) -> Template:
        if not self.accept("/"):
            self.fail("expected '/'")
        if self.peek():
            self.path()
        return Template(
            text=self.text,
            segments=tuple(self.segments),
            variables=tuple(self.variables),
            verb=self.verb,
        )

    def path(self) -> None:
        while True:
            if self.accept("{"):
                self.variable()
            elif not self.wildcard():
                self.literal_with_verb()
            if not self.accept("/"):
                break
        if self.accept(":"):
            start = self.position
            self.verb = self.literal(self.text[start:], "a verb")
        if self.position < len(self.text):
            self.fail("expected '/', ':' or the end")

    def wildcard(self) -> bool:
        start = self.position
        if not self.accept("*"):
            return False
        many = self.accept("*")
        if many and Wildcard.MANY in self.segments:
            self.fail("'**' may stand once only", start)
        if self.peek() not in ("", "/", ":", "}"):
            self.fail("expected '/', ':' or the end after a wildcard")
        self.segments.append(Wildcard.MANY if many else Wildcard.ONE)
        return True

    def literal_with_verb(self) -> None:
        end = self.text.find("/", self.position)
        if end < 0:
            # The last segment: what follows its last colon is the verb.
            raw = self.text[self.position :]
            colon = raw.rfind(":")
            end = len(self.text) if colon < 0 else self.position + colon
        brace = self.text.find("{", self.position, end)
        if brace >= 0:
            self.fail("expected '/' before a variable", brace)
        self.segments.append(self.literal(self.text[self.position : end], "a segment"))

    def literal(self, raw: str, what: str) -> str:
        if not raw:
            self.fail(f"expected {what}")
        match = _LITERAL.match(raw)
        length = match.end() if match else 0
        if length < len(raw):
            at = self.position + length
            if raw[length] == "%":
                self.fail("bad percent-escape", at)
            self.fail(f"character {raw[length]!r} may not stand in {what}", at)
        try:
            decoded = percent.decode(raw)
        except ValueError:
            self.fail("percent-escapes are not UTF-8")
        self.position += len(raw)
        return decoded

    def variable(self) -> None:
        start = self.position
        path = self.field_path()
        if any(path == v.path for v in self.variables):
            self.fail(f"variable {'.'.join(path)!r} stands twice", start)
        first = len(self.segments)
        if self.accept("="):
            self.pattern()
        else:
            self.segments.append(Wildcard.ONE)
        if not self.accept("}"):
            self.fail("expected '}'")
        stop = len(self.segments)
        self.variables.append(
            Variable(
                path=path,
                first=first,
                stop=stop,
                single=stop - first == 1 and self.segments[first] is not Wildcard.MANY,
            )
        )
        if self.peek() not in ("", "/", ":"):
            self.fail("expected '/', ':' or the end after a variable")

    def field_path(self) -> tuple[str, ...]:
        path: list[str] = []
        while True:
            match = _IDENT.match(self.text, self.position)
            if match is None:
                self.fail("expected a field name")
            self.position = match.end()
            path.append(match.group())
            if not self.accept("."):
                return tuple(path)

    def pattern(self) -> None:
        while True:
            if self.peek() == "{":
                self.fail("a variable may not hold another")
            if not self.wildcard():
                match = _INNER.match(self.text, self.position)
                self.segments.append(self.literal(match.group() if match else "", "a segment"))
            if not self.accept("/"):
                return
