"""Solution: composes a cited answer from passages, and from nothing else."""

from weft.agents.support.solution.composer import Brief, Composer, Draft, Run
from weft.agents.support.solution.service import SolutionAgent
from weft.agents.support.solution.written import WritingComposer

__all__ = ["Brief", "Composer", "Draft", "Run", "SolutionAgent", "WritingComposer"]
