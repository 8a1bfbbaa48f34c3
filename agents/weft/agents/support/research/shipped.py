"""The articles the fleet ships with."""

from __future__ import annotations

from importlib import resources

from weft.agents.support.research.articles import Article, parse


def articles() -> list[Article]:
    """A bank's help desk, ordered by id."""
    folder = resources.files("weft.agents.support").joinpath("knowledge")
    return [
        parse(file.name.removesuffix(".md"), file.read_text(encoding="utf-8"))
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".md")
    ]
