"""What a model is taught, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A text and its intent."""

    text: str
    intent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """An intent and its probability."""

    intent: str
    confidence: float
