"""Quality: decides whether an answer may be sent."""

from weft.agents.support.quality.service import QualityAgent

__all__ = ["QualityAgent"]
