"""What tokens cost. Prices are a file with a date; a model that is not in it has no known cost, which is not zero."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from weft.agents.llm.usage import Usage

NANO = 1_000_000_000
"""Money is counted in whole billionths of a US dollar, so that sums are exact."""

_MILLION = 1_000_000
_KINDS = ("input", "write_5m", "write_1h", "read", "output")
_DATED = re.compile(r"-\d{8}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a token costs, in billionths of a US dollar.

    Attributes:
        long: what each costs where the prompt is longer than `above` tokens.
        above: 0: it does not matter how long it is.
    """

    input: int
    write_5m: int
    write_1h: int
    read: int
    output: int
    above: int = 0
    long: Price | None = None

    def of(self, usage: Usage) -> int:
        """The cost of a call, in billionths of a US dollar."""
        if self.long is not None and usage.prompt > self.above:
            return self.long.of(usage)
        return (
            usage.input * self.input
            + usage.cache_write_5m * self.write_5m
            + usage.cache_write_1h * self.write_1h
            + usage.cache_read * self.read
            + usage.output * self.output
        )

    def at_most(self, prompt: int) -> tuple[int, int]:
        """The most that a prompt of so many tokens can cost, and each token of its answer."""
        if self.long is not None and prompt > self.above:
            return self.long.at_most(prompt)
        return prompt * max(self.input, self.write_5m, self.write_1h), self.output


FREE = Price(input=0, write_5m=0, write_1h=0, read=0, output=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices of models.

    Attributes:
        date: when they were looked up, YYYY-MM-DD.
        models: by the model's name, without the date of a snapshot.
    """

    date: str
    models: Mapping[str, Price]

    @classmethod
    def shipped(cls) -> Prices:
        """Those that came with this version."""
        text = resources.files("weft.agents.llm").joinpath("prices.json").read_text("utf-8")
        return cls._of(json.loads(text))

    @classmethod
    def load(cls, path: Path) -> Prices:
        """Those of a file in the form of the shipped one.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            return cls._of(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, KeyError, TypeError, ValueError) as failed:
            raise ValueError(f"{path} holds no prices: {failed!r}") from failed

    @classmethod
    def _of(cls, given: Mapping[str, Any]) -> Prices:
        found = {name: _price(each) for name, each in given["models"].items()}
        return cls(date=str(given["date"]), models=found)

    def of(self, model: str) -> Price | None:
        """The price of a model; None: it is not known."""
        name = model.rpartition("/")[2].removeprefix("anthropic.")
        return self.models.get(name) or self.models.get(_DATED.sub("", name))


def _price(given: Mapping[str, Any]) -> Price:
    each = {kind: round(given[kind] * NANO / _MILLION) for kind in _KINDS}
    if "long" not in given:
        return Price(**each)
    return Price(**each, above=int(given["long"]["above"]), long=_price(given["long"]))
