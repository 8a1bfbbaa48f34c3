"""Composites of the nodes that are made of parts, by what they are compiled to.

A pattern is a class that takes its plan (`plan.patterns`) and is a `run.composite.Composite`; it is known once it is in
`COMPOSITES`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from weft.agents.orchestrator.patterns.debate import Debate
from weft.agents.orchestrator.patterns.for_each import ForEach
from weft.agents.orchestrator.patterns.panel import Panel
from weft.agents.orchestrator.patterns.peer_review import PeerReview
from weft.agents.orchestrator.patterns.supervision import Supervision
from weft.agents.orchestrator.patterns.verification import Verification
from weft.agents.orchestrator.plan import patterns as plans
from weft.agents.orchestrator.run.composite import Composite

Composites = Mapping[type, Callable[[Any], Composite]]

COMPOSITES: Final[Composites] = {
    plans.ForEachPlan: ForEach,
    plans.DebatePlan: Debate,
    plans.PanelPlan: Panel,
    plans.VerificationPlan: Verification,
    plans.SupervisionPlan: Supervision,
    plans.PeerReviewPlan: PeerReview,
}

__all__ = ["COMPOSITES", "Composites"]
