"""Label selectors as Kubernetes writes them (Labels and Selectors, "API": equality-based and set-based)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"[-A-Za-z0-9_./:]*"
_PRESENT = re.compile(rf"\s*(?P<not>!?)\s*(?P<key>{_KEY})\s*")
_EQUAL = re.compile(rf"\s*(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})\s*")
_AMONG = re.compile(rf"\s*(?P<key>{_KEY})\s+(?P<sign>in|notin)\s*\((?P<values>[^()]*)\)\s*")
_BETWEEN = re.compile(r",(?![^()]*\))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """What one label must be.

    Attributes:
        text: as it was written.
        key: of the label.
        values: it must have one of these; None: any.
        negated: it must not. A label that is not there meets what is negated.
    """

    text: str
    key: str
    values: frozenset[str] | None
    negated: bool

    def met_by(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it."""
        there = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return there != self.negated


def parse(selector: str) -> tuple[Requirement, ...]:
    """The requirements of a selector, all of which must be met.

    Raises:
        ValueError: it is none; the text says which part is wrong.
    """
    return tuple(_requirement(part) for part in _BETWEEN.split(selector))


def _requirement(text: str) -> Requirement:
    if found := _AMONG.fullmatch(text):
        values = frozenset(value.strip() for value in found["values"].split(","))
        if all(re.fullmatch(_VALUE, value) for value in values):
            return _made(text, found, values, negated=found["sign"] == "notin")
    elif found := _EQUAL.fullmatch(text):
        return _made(text, found, frozenset([found["value"]]), negated=found["sign"] == "!=")
    elif found := _PRESENT.fullmatch(text):
        return _made(text, found, None, negated=bool(found["not"]))
    raise ValueError(
        f'{text.strip()!r} is no label selector; write "gpu", "!gpu", "env=prod", "env!=dev" or '
        '"env in (prod, canary)", joined by commas'
    )


def _made(
    text: str, found: re.Match[str], values: frozenset[str] | None, *, negated: bool
) -> Requirement:
    return Requirement(text=text.strip(), key=found["key"], values=values, negated=negated)
