"""What the expressions of a run may name, as it stands."""

from __future__ import annotations

from google.protobuf.message import Message

from weft.agents.orchestrator.plan.model import Plan, Scope
from weft.agents.orchestrator.plan.types import Given, item_of
from weft.v1.workflow_pb2 import Decision, RunInfo, StepFailure


class RunScope:
    """The variables of a run, changed in place as steps end.

    Attributes:
        live: the variables. Whoever keeps them for later takes a `snapshot`.
    """

    def __init__(self, plan: Plan, run: RunInfo, given: Message) -> None:
        self._ran: dict[str, bool] = dict.fromkeys(plan.nodes, False)
        self._visits: dict[str, int] = dict.fromkeys(plan.nodes, 0)
        self._failures: dict[str, StepFailure] = {}
        self._decisions: dict[str, Decision] = {}
        self._newest: dict[str, int] = {}
        self.live: dict[str, object] = {
            node.id: [] if item_of(node.output_type) else plan.types.new(node.output_type)
            for node in plan.nodes.values()
        }
        self.live.update(
            input=given,
            run=run,
            ran=self._ran,
            visits=self._visits,
            failures=self._failures,
            decisions=self._decisions,
        )

    def visits(self, node: str) -> int:
        """How often a node was visited."""
        return self._visits[node]

    def begun(self, node: str, visit: int) -> None:
        """A visit of a node has begun."""
        self._visits[node] = visit

    def gave(self, node: str, visit: int, given: Given) -> None:
        """A visit of a node gave something; that of a later one stays."""
        self._ran[node] = True
        if visit >= self._newest.get(node, 0):
            self._newest[node] = visit
            self.live[node] = given

    def failed(self, node: str, failure: StepFailure) -> None:
        """A visit of a node failed."""
        self._failures[node] = failure

    def decided(self, node: str, decision: Decision) -> None:
        """People decided."""
        self._decisions[node] = decision

    def snapshot(self) -> Scope:
        """The variables as they are now. Messages in it are shared, and never changed."""
        return {
            **self.live,
            "ran": dict(self._ran),
            "visits": dict(self._visits),
            "failures": dict(self._failures),
            "decisions": dict(self._decisions),
        }
