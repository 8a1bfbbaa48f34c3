"""Names of tools: stable, of characters that every host and model takes, and each of its own."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

from weft.gateway.transcoding.catalog import Method

# Narrower than MCP's own rule (which allows a dot): functions of the large model APIs are named so.
VALID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST = 64
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


def tool_names(methods: Iterable[Method]) -> dict[str, Method]:
    """Methods by the names of their tools, in order of the names.

    A name is what the skill's option says, or agent and method; where two would have the same, an option goes
    before a made name, and those that are left all get a suffix made of their path, so that no name depends on
    who came first.
    """
    methods = list(methods)
    given = {
        method: method.skill.tool_name
        for method in methods
        if VALID.fullmatch(method.skill.tool_name)
    }
    names = dict(given)
    taken = set(given.values())
    for method in methods:
        if method not in given:
            name = _shorten(f"{method.agent.name}_{'_'.join(words(method.name))}", method)
            names[method] = _distinct(name, method) if name in taken else name
    count = Counter(names.values())
    return dict(
        sorted(
            (
                (_distinct(name, method) if count[name] > 1 else name, method)
                for method, name in names.items()
            ),
            key=lambda named: named[0],
        )
    )


def words(name: str) -> list[str]:
    """The words of a name in CamelCase, lower case."""
    return [word.lower() for word in _WORDS.findall(name)] or [name.lower()]


def _shorten(name: str, method: Method) -> str:
    return name if len(name) <= _LONGEST else _distinct(name, method)


def _distinct(name: str, method: Method) -> str:
    suffix = "_" + hashlib.sha256(method.path.encode()).hexdigest()[:8]
    return name[: _LONGEST - len(suffix)] + suffix
