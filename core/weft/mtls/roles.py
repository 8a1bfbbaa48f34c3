"""Which agents a certificate's bearer may be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from weft.mtls.ids import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Rules for ids that do not name their agents.

    Attributes:
        rules: a pattern of ids, and one of the agents that they may be.
    """

    rules: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = ()

    @classmethod
    def read(cls, text: str) -> Self:
        """Rules such as "spiffe://example.org/ns/shop/sa/*=shop-* cashier", joined by commas; `*` stands for what has no slash.

        Raises:
            ValueError: they are not of this form.
        """
        rules = []
        for rule in filter(None, (each.strip() for each in text.split(","))):
            ids, equals, agents = rule.partition("=")
            if not (equals and ids.startswith("spiffe://") and agents.split()):
                raise ValueError(
                    f"{rule!r} is not ID=AGENT AGENT, such as spiffe://example.org/ns/shop/sa/*=shop-*"
                )
            # A star stands for one segment of the path: what is below a name is somebody else.
            found = _pattern(ids.strip(), "[^/]*")
            rules += [(found, _pattern(agent, ".*")) for agent in agents.split()]
        return cls(rules=tuple(rules))

    def may_be(self, who: SpiffeId, agent: str) -> bool:
        """Whether the bearer of an id may be an agent."""
        return agent in who.agents or any(
            ids.fullmatch(str(who)) and agents.fullmatch(agent) for ids, agents in self.rules
        )


def _pattern(text: str, star: str) -> re.Pattern[str]:
    return re.compile(star.join(re.escape(part) for part in text.split("*")))
