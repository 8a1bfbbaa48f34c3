"""Named SQL, read from the `.sql` files of a package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

_MIGRATION = re.compile(r"\d{4}_\w+\.sql")
_NAME = re.compile(r"^-- name: *(\w+) *$", re.MULTILINE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_READ = re.compile(r"\s*(select|values|table|with|show)\b", re.IGNORECASE)
# Wide on purpose: a word in a literal costs a repetition that would have been safe, nothing else.
_EFFECT = re.compile(
    r"\b(insert|update|delete|merge|into|nextval|setval|set_config|pg_notify|pg_advisory\w*|"
    r"pg_try_advisory\w*|for\s+(no\s+key\s+|key\s+)?share)\b",
    re.IGNORECASE,
)


class UnknownQuery(LookupError):
    """A query of this name was not loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A statement. `reads`: it changes nothing, so that running it twice is running it once."""

    name: str
    sql: str
    reads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A migration."""

    name: str
    sql: str


class Queries:
    """The queries of one or more packages by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Query] = {}

    def load(self, package: str) -> None:
        """Adds the queries of a package. Raises ValueError when a file breaks the form."""
        found: dict[str, Query] = {}
        for name, text in _files(package):
            if _MIGRATION.fullmatch(name):
                continue
            for query in _parse(f"{package}/{name}", text):
                if query.name in found:
                    raise ValueError(f"{package}: two queries have the name {query.name}")
                found[query.name] = query
        self._by_name.update(found)

    def __getitem__(self, name: str) -> Query:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownQuery(
                f"There is no query {name!r}; loaded are: {', '.join(sorted(self._by_name))}"
            ) from None


def migrations(package: str) -> list[Script]:
    """The migrations of a package in their order."""
    found = [
        Script(name=name, sql=text) for name, text in _files(package) if _MIGRATION.match(name)
    ]
    return sorted(found, key=lambda script: script.name)


def _files(package: str) -> Iterator[tuple[str, str]]:
    for file in resources.files(package).iterdir():
        if file.name.endswith(".sql"):
            yield file.name, file.read_text(encoding="utf-8")


def _parse(file: str, text: str) -> Iterator[Query]:
    head, *parts = _NAME.split(text)
    if _COMMENT.sub("", head).strip():
        raise ValueError(f"{file}: there is SQL before the first '-- name:'")
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if not body.lstrip("\n").startswith("--"):
            raise ValueError(f"{file}: a comment under '-- name: {name}' should say what it is for")
        bare = _COMMENT.sub(" ", body)
        reads = _READ.match(bare) is not None and _EFFECT.search(bare) is None
        yield Query(name=name, sql=body.strip(), reads=reads)
