"""What triage ships with: examples for the default model, and sample sentences of the languages it tells apart."""

from __future__ import annotations

import csv
from importlib import resources

from weft.agents.support.triage.lesson import Example


def examples() -> list[Example]:
    """Labelled customer texts of a bank's help desk."""
    return [Example(text=row["text"], intent=row["intent"]) for row in _rows("examples.csv")]


def language_samples() -> list[tuple[str, str]]:
    """Pairs of a sentence and its language as a BCP 47 tag."""
    return [(row["text"], row["language"]) for row in _rows("languages.csv")]


def _rows(name: str) -> list[dict[str, str]]:
    file = resources.files("weft.agents.support.triage").joinpath(name)
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
