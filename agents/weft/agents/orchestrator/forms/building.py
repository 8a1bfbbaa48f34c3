"""Workflows written in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypedDict, Unpack

from google.protobuf.message import Message

from weft.agents.orchestrator.forms import parts
from weft.agents.orchestrator.forms.parts import Skill, set_span
from weft.agents.orchestrator.forms.steps import Step, Steps
from weft.v1.workflow_pb2 import (
    ApprovalGate,
    Call,
    Debate,
    DecisionRule,
    Edge,
    ForEach,
    Node,
    Panel,
    Participant,
    PeerReview,
    Retry,
    SubWorkflow,
    Supervision,
    Timer,
    Verification,
    Wait,
    WorkflowSpec,
)

Rule = Literal["majority", "ranked", "weighted", "unanimity", "judge"]


class Options(TypedDict, total=False):
    """What every step may say; see weft.v1.Node."""

    description: str
    join: Literal["all", "any", "quorum"] | int
    max_visits: int
    timeout: timedelta
    retry: Retry
    compensation: Call


class Workflow:
    """A workflow in the making. Expressions are CEL, and are checked when the workflow is submitted.

        flow = Workflow("answer", input=HandleRequest)
        triage = flow.call("triage", TriageServiceServicer.Classify, text="input.text")
        research = flow.call("research", ResearchServiceServicer.Search, query="input.text")
        triage.when("triage.assessment.urgency < 4") >> research
        spec = flow.spec()

    Args:
        name: its name.
        input: type of the message that a run begins with.
        description: what it is for.
        output: expression of the result; empty: what the last step gives.
        max_duration: how long a run may take; None: 7 days.
    """

    def __init__(
        self,
        name: str,
        *,
        input: type[Message],  # noqa: A002  as the contract calls it
        description: str = "",
        output: str = "",
        max_duration: timedelta | None = None,
    ) -> None:
        kind = input.DESCRIPTOR.full_name
        self._spec = WorkflowSpec(
            name=name, description=description, input_type=kind, output=output
        )
        set_span(self._spec.max_duration, max_duration)
        self._nodes: list[Node] = []
        self._edges: list[Edge] = []

    def spec(self) -> WorkflowSpec:
        """The workflow, as it stands."""
        spec = WorkflowSpec()
        spec.CopyFrom(self._spec)
        spec.nodes.extend(self._nodes)
        spec.edges.extend(self._edges)
        return spec

    def call(
        self,
        id: str,  # noqa: A002  as the contract calls it
        method: Skill,
        *,
        agent: str | None = None,
        tags: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        message: str | None = None,
        node: Options | None = None,
        **fields: str,
    ) -> Step:
        """Calls a skill; see `skill`. What every step may say is in `node`, as a field may have any name.

        Raises:
            ValueError: the request has no such field.
        """
        made = parts.skill(method, agent=agent, tags=tags, labels=labels, message=message, **fields)
        return self._step(Node(id=id, call=made), node or {})

    def compute(
        self,
        id: str,  # noqa: A002  as the contract calls it
        kind: type[Message],
        *,
        message: str | None = None,
        node: Options | None = None,
        **fields: str,
    ) -> Step:
        """Computes a message; see `compute`.

        Raises:
            ValueError: it has no such field.
        """
        made = parts.compute(kind, message=message, **fields)
        return self._step(Node(id=id, compute=made), node or {})

    def for_each(
        self,
        id: str,  # noqa: A002  as the contract calls it
        calls: Call | Sequence[Call],
        *,
        over: str = "",
        at_once: int = 0,
        least: int = 0,
        most: int = 0,
        **node: Unpack[Options],
    ) -> Step:
        """Calls a skill for each item of the list `over`, or several skills beside each other."""
        given = [calls] if isinstance(calls, Call) else calls
        made = ForEach(over=over, calls=given, at_once=at_once, least=least, most=most)
        return self._step(Node(id=id, for_each=made), node)

    def approval(
        self,
        id: str,  # noqa: A002  as the contract calls it
        *,
        title: str,
        show: str,
        scope: str = "",
        own: bool = False,
        quorum: int = 0,
        editable: bool = False,
        expires: timedelta | None = None,
        webhook_url: str = "",
        **node: Unpack[Options],
    ) -> Step:
        """Asks people. `title` and `show` are expressions: of a text, and of the message they see."""
        made = ApprovalGate(
            title=title,
            show=show,
            scope=scope,
            own=own,
            quorum=quorum,
            editable=editable,
            webhook_url=webhook_url,
        )
        set_span(made.expires, expires)
        return self._step(Node(id=id, approval=made), node)

    def wait(
        self,
        id: str,  # noqa: A002  as the contract calls it
        kind: type[Message],
        *,
        name: str = "",
        up_to: timedelta | None = None,
        **node: Unpack[Options],
    ) -> Step:
        """Waits for a message from outside. `name`: its name; empty: the step's id."""
        made = Wait(name=name or id, type=kind.DESCRIPTOR.full_name)
        set_span(made.timeout, up_to)
        return self._step(Node(id=id, wait=made), node)

    def timer(
        self,
        id: str,  # noqa: A002  as the contract calls it
        until: timedelta | str,
        **node: Unpack[Options],
    ) -> Step:
        """Waits so long, or until the time that an expression says."""
        made = Timer(at=until) if isinstance(until, str) else Timer()
        if isinstance(until, timedelta):
            made.pause.FromTimedelta(until)
        return self._step(Node(id=id, timer=made), node)

    def workflow(
        self,
        id: str,  # noqa: A002  as the contract calls it
        name: str,
        *,
        version: int = 0,
        message: str | None = None,
        node: Options | None = None,
        **fields: str,
    ) -> Step:
        """Runs another workflow."""
        made = SubWorkflow(name=name, version=version)
        parts.fill(made, "message", message, fields, None)
        return self._step(Node(id=id, workflow=made), node or {})

    def debate(
        self,
        id: str,  # noqa: A002  as the contract calls it
        question: str,
        participants: Sequence[Participant],
        *,
        rounds: int = 0,
        rule: Rule = "majority",
        judge: Participant | None = None,
        least: int = 0,
        **node: Unpack[Options],
    ) -> Step:
        """Several agents answer, see each other's answers, and vote."""
        made = Debate(
            question=question,
            participants=participants,
            rounds=rounds,
            rule=DecisionRule.Value(f"DECISION_RULE_{rule.upper()}"),
            judge=judge,
            least=least,
        )
        return self._step(Node(id=id, debate=made), node)

    def panel(
        self,
        id: str,  # noqa: A002  as the contract calls it
        question: str,
        experts: Sequence[Participant],
        synthesizer: Participant,
        **node: Unpack[Options],
    ) -> Step:
        """Experts report each by itself, and one brings the reports together."""
        made = Panel(question=question, experts=experts, synthesizer=synthesizer)
        return self._step(Node(id=id, panel=made), node)

    def verification(
        self,
        id: str,  # noqa: A002  as the contract calls it
        question: str,
        author: Participant,
        verifier: Participant,
        *,
        enough: float = 0,
        revisions: int = 0,
        **node: Unpack[Options],
    ) -> Step:
        """One answers, another verifies, the first revises."""
        made = Verification(
            question=question,
            author=author,
            verifier=verifier,
            enough=enough,
            revisions=revisions,
        )
        return self._step(Node(id=id, verification=made), node)

    def supervision(
        self,
        id: str,  # noqa: A002  as the contract calls it
        question: str,
        supervisor: Participant,
        workers: Sequence[Participant],
        *,
        most: int = 0,
        **node: Unpack[Options],
    ) -> Step:
        """A supervisor says who does what next, until it is done."""
        made = Supervision(question=question, supervisor=supervisor, workers=workers, most=most)
        return self._step(Node(id=id, supervision=made), node)

    def peer_review(
        self,
        id: str,  # noqa: A002  as the contract calls it
        question: str,
        participants: Sequence[Participant],
        *,
        reviews: int = 0,
        **node: Unpack[Options],
    ) -> Step:
        """Each answers and reviews the answers of others, then revises."""
        made = PeerReview(question=question, participants=participants, reviews=reviews)
        return self._step(Node(id=id, peer_review=made), node)

    @staticmethod
    def all_of(*steps: Step) -> Steps:
        """Steps beside each other, for ways to and from all of them."""
        return Steps(steps)

    def _step(self, made: Node, node: Options) -> Step:
        made.description = node.get("description", "")
        made.max_visits = node.get("max_visits", 0)
        match node.get("join", "all"):
            case "any":
                made.join.any = True
            case "quorum":
                made.join.quorum = True
            case int(first):
                made.join.first = first
        set_span(made.timeout, node.get("timeout"))
        if (again := node.get("retry")) is not None:
            made.retry.CopyFrom(again)
        if (undo := node.get("compensation")) is not None:
            made.compensation.CopyFrom(undo)
        self._nodes.append(made)
        return Step(made.id, made, self._edges.append)
