"""Pictures of workflows and of their runs: SVG, and text of Mermaid."""

from weft.agents.orchestrator.drawing.mermaid import to_mermaid
from weft.agents.orchestrator.drawing.picture import Picture, picture_of
from weft.agents.orchestrator.drawing.svg import to_svg

__all__ = ["Picture", "picture_of", "to_mermaid", "to_svg"]
