"""Patterns of topics, and the trie that finds which of them match a topic.

A topic is words joined by dots. In a pattern "*" stands for one word, and ">" at its end for one or more. Finding takes
time by the words of the topic and the patterns that begin like it, not by how many patterns there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Generic, TypeVar

from weft import rpc

ANY, REST = "*", ">"
_MOST = 256
_PATTERN = re.compile(r"((?:[a-z0-9_-]+|\*)\.)*(?:[a-z0-9_-]+|\*|>)")

Value = TypeVar("Value")


def check_pattern(pattern: str, field: str) -> None:
    """Whether it is a pattern.

    Raises:
        InvalidArgument: it is not.
    """
    if len(pattern) > _MOST or not _PATTERN.fullmatch(pattern):
        raise rpc.InvalidArgument(
            f'must be words of a-z, 0-9, "-" and "_" joined by dots, at most {_MOST} characters; '
            'a word may be "*", the last one ">"',
            field=field,
        )


class _Node(Generic[Value]):
    """What patterns have in common up to a word. `rest`: values of those that end here with ">"."""

    __slots__ = ("children", "here", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Value]] = {}
        self.here: set[Value] = set()
        self.rest: set[Value] = set()

    @property
    def empty(self) -> bool:
        return not (self.children or self.here or self.rest)


class Patterns(Generic[Value]):
    """Values by pattern."""

    def __init__(self) -> None:
        self._root: _Node[Value] = _Node()

    def add(self, pattern: str, value: Value) -> None:
        """Keeps a value under a pattern, once."""
        node, last = self._root, ""
        for last in pattern.split("."):
            if last != REST:
                node = node.children.setdefault(last, _Node())
        (node.rest if last == REST else node.here).add(value)

    def remove(self, pattern: str, value: Value) -> None:
        """Forgets it; nothing is left of a pattern without values."""
        path = [(self._root, "")]
        for word in pattern.split("."):
            node = path[-1][0]
            if word == REST:
                node.rest.discard(value)
                break
            if word not in node.children:
                return
            path.append((node.children[word], word))
        else:
            path[-1][0].here.discard(value)
        for (parent, _), (node, word) in zip(path[-2::-1], path[:0:-1], strict=True):
            if node.empty:
                del parent.children[word]

    def matching(self, topic: str) -> set[Value]:
        """Values of all patterns that match a topic."""
        return set(self._found(topic.split(".")))

    def __bool__(self) -> bool:
        return not self._root.empty

    def _found(self, words: list[str]) -> Iterator[Value]:
        nodes = [self._root]
        for word in words:
            for node in nodes:
                yield from node.rest
            nodes = [
                child
                for node in nodes
                for branch in (word, ANY)
                if (child := node.children.get(branch)) is not None
            ]
        for node in nodes:
            yield from node.here
