"""YAML and JSON as a tree that knows the line and column of everything in it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import yaml

_MOST_NODES = 100_000  # what aliases stand for is counted each time
_MOST_DEPTH = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in a text, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A single value, as it is written.

    Attributes:
        quoted: it is a string, whatever it looks like.
    """

    at: Position
    text: str
    quoted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list."""

    at: Position
    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A mapping, in its order; a key may be there twice."""

    at: Position
    entries: tuple[tuple[Scalar, Tree], ...]


Tree = Scalar | Items | Table


class TextFault(ValueError):
    """A text is neither YAML nor JSON."""

    def __init__(self, message: str, at: Position) -> None:
        super().__init__(message)
        self.at = at


def tree(text: str, *, as_json: bool) -> Tree:
    """The tree of a text with one document.

    Raises:
        TextFault: it is none; says where.
    """
    if as_json:
        _check_json(text)
        text = text.replace("\t", " ")  # which YAML does not take; no string of JSON has one
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as failed:
        mark = failed.problem_mark or failed.context_mark
        words = failed.problem or failed.context or "it cannot be read"
        raise TextFault(words, _position(mark)) from failed
    except yaml.YAMLError as failed:
        raise TextFault(str(failed).splitlines()[0], Position(line=1, column=1)) from failed
    except RecursionError as failed:
        raise TextFault("it is nested too deeply", Position(line=1, column=1)) from failed
    if node is None:
        raise TextFault("it is empty", Position(line=1, column=1))
    return _Planter().plant(node, 0)


def _check_json(text: str) -> None:
    try:
        json.loads(text)
    except json.JSONDecodeError as failed:
        at = Position(line=failed.lineno, column=failed.colno)
        raise TextFault(failed.msg, at) from failed
    except RecursionError as failed:
        raise TextFault("it is nested too deeply", Position(line=1, column=1)) from failed


class _Planter:
    def __init__(self) -> None:
        self._count = 0

    def plant(self, node: yaml.Node, depth: int) -> Tree:
        at = _position(node.start_mark)
        self._count += 1
        if self._count > _MOST_NODES:
            raise TextFault("it is too large", at)
        if depth > _MOST_DEPTH:
            raise TextFault("it is nested too deeply", at)
        if isinstance(node, yaml.SequenceNode):
            return Items(at=at, items=tuple(self.plant(each, depth + 1) for each in node.value))
        if isinstance(node, yaml.MappingNode):
            entries = [(self._key(key, depth), self.plant(v, depth + 1)) for key, v in node.value]
            return Table(at=at, entries=tuple(entries))
        return _scalar(node)

    def _key(self, node: yaml.Node, depth: int) -> Scalar:
        key = self.plant(node, depth + 1)
        if not isinstance(key, Scalar):
            raise TextFault("a key has to be a word", key.at)
        return key


def _scalar(node: yaml.Node) -> Scalar:
    text = str(node.value)
    if any("\ud800" <= each <= "\udfff" for each in text):
        # JSON writes what is beyond 16 bits in two halves.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Scalar(at=_position(node.start_mark), text=text, quoted=node.style is not None)


def _position(mark: yaml.Mark | None) -> Position:
    if mark is None:
        return Position(line=1, column=1)
    return Position(line=mark.line + 1, column=mark.column + 1)
