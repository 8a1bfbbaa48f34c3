"""The schemas of the mesh's database, and the packages whose migrations make them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A schema. `extra`: of the distribution, without which nothing uses it."""

    name: str
    packages: tuple[str, ...]
    extra: str = ""

    def usable(self) -> bool:
        """Whether what uses it is installed."""
        return not self.extra or importlib.util.find_spec(self.extra) is not None


SCHEMAS = (
    Schema(name="registry", packages=("weft.registry.sql", "weft.registry.discovery.sql")),
    Schema(name="broker", packages=("weft.broker.sql",)),
    Schema(name="gateway", packages=("weft.gateway.sql",)),
    Schema(name="orchestrator", packages=("weft.agents.orchestrator.sql",)),
    Schema(name="support", packages=("weft.agents.support.sql", "weft.agents.memory.sql")),
    Schema(name="memory", packages=("weft.agents.memory.sql",)),
    Schema(name="weft_models", packages=("weft.agents.llm.sql",)),
    Schema(name="tools", packages=("weft.agents.tools.audit.sql",)),
    Schema(name="langgraph", packages=("weft.agents.langgraph.sql",), extra="langgraph"),
)
