"""One request to one endpoint: the only place that knows the anthropic SDK, and the guards against what it does by itself."""

from weft.agents.llm.wire.client import Client

__all__ = ["Client"]
