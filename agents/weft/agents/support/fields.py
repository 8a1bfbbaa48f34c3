"""Rules for the fields of requests. Each rule yields violations: the field's path and what is wrong with it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Sized

from google.protobuf.descriptor import EnumDescriptor

from weft import rpc

Violation = tuple[str, str]

MOST_TEXT = 8_000  # characters of what a customer writes, and of an answer


def check(*rules: Iterable[Violation]) -> None:
    """Applies the rules.

    Raises:
        rpc.InvalidArgument: with all violations, if there are any.
    """
    found = [violation for rule in rules for violation in rule]
    if found:
        raise rpc.InvalidArgument(violations=found)


def text(path: str, value: str, most: int = MOST_TEXT) -> Iterator[Violation]:
    """A text that is not blank, of at most `most` characters. NUL is refused: PostgreSQL cannot store it."""
    if not value.strip():
        yield path, "must not be empty"
    elif len(value) > most:
        yield path, f"must be at most {most:,} characters"
    elif "\x00" in value:
        yield path, "must not contain NUL characters"


def optional_text(path: str, value: str, most: int) -> Iterator[Violation]:
    """The same for a text that may be empty."""
    if value:
        yield from text(path, value, most)


def matching(path: str, value: str, pattern: re.Pattern[str], what: str) -> Iterator[Violation]:
    """A text that matches `pattern` as a whole; `what` says so to people."""
    if not pattern.fullmatch(value):
        yield path, f"must be {what}"


def optional_matching(
    path: str, value: str, pattern: re.Pattern[str], what: str
) -> Iterator[Violation]:
    """The same for a text that may be empty."""
    if value:
        yield from matching(path, value, pattern, what)


def uuid_text(path: str, value: str) -> Iterator[Violation]:
    """A UUID in any of its usual spellings."""
    try:
        uuid.UUID(value)
    except ValueError:
        yield path, "must be a UUID"


def at_most(path: str, values: Sized, most: int) -> Iterator[Violation]:
    """A list of at most `most` entries."""
    if len(values) > most:
        yield path, f"takes at most {most:,} entries"


def between(path: str, value: int, least: int, most: int) -> Iterator[Violation]:
    """A number of `least` to `most`."""
    if not least <= value <= most:
        yield path, f"must be {least:,} to {most:,}"


def member(path: str, value: int, enum: EnumDescriptor) -> Iterator[Violation]:
    """A value that the enum names; proto3 lets unknown numbers through."""
    if value not in enum.values_by_number:
        yield path, f"is not a value of {enum.name}"
