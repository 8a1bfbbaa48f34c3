"""Whether nodes that are made of parts are what they should be: for-each nodes, debates and their like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from weft.agents.orchestrator.plan import cel
from weft.agents.orchestrator.plan.cel import Program, StaticType
from weft.agents.orchestrator.plan.check_calls import Calls
from weft.agents.orchestrator.plan.debaters import completed
from weft.agents.orchestrator.plan.expressions import Expressions, Place
from weft.agents.orchestrator.plan.faults import Faults
from weft.agents.orchestrator.plan.model import CallAction
from weft.agents.orchestrator.plan.patterns import (
    DebatePlan,
    ForEachPlan,
    PanelPlan,
    ParticipantPlan,
    PatternPlan,
    PeerReviewPlan,
    SupervisionPlan,
    VerificationPlan,
)
from weft.v1 import workflow_pb2
from weft.v1.workflow_pb2 import DecisionRule, FaultKind, Node, Participant

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_MOST_PARTICIPANTS: Final = 20
_MOST_WORKERS: Final = 50
_MOST_ROUNDS: Final = 5
_ROUNDS: Final = 2
_MOST_TASKS: Final = 50
_TASKS: Final = 10
_MOST_AT_ONCE: Final = 100
_AT_ONCE: Final = 16
_MOST_ITEMS: Final = 10_000
_ITEMS: Final = 1_000
_REVIEWS: Final = 2
_OPINION: Final = workflow_pb2.Opinion.DESCRIPTOR.full_name

_MALFORMED = FaultKind.FAULT_KIND_MALFORMED
_OUT_OF_RANGE = FaultKind.FAULT_KIND_OUT_OF_RANGE


class Patterns:
    """Compiles nodes that are made of parts; each method gives None where something is wrong."""

    def __init__(self, expressions: Expressions, calls: Calls, faults: Faults) -> None:
        self._expressions = expressions
        self._calls = calls
        self._faults = faults
        opinions = cel.message_type(_OPINION)
        positions = _list_of(workflow_pb2.Position.DESCRIPTOR.full_name)
        self._common: Mapping[str, StaticType] = {
            "question": cel.STRING,
            "round": cel.INT,
            "peers": positions,
        }
        self._judging = {"positions": positions}
        self._reports = {"reports": _list_of(workflow_pb2.Report.DESCRIPTOR.full_name)}
        self._draft = {"draft": opinions}
        self._drafting = {"draft": opinions, "issues": cel.list_type(cel.STRING)}
        self._supervising = {
            "done": _list_of(workflow_pb2.Contribution.DESCRIPTOR.full_name),
            "workers": cel.list_type(cel.STRING),
        }

    def compile(self, node: Node, place: Place) -> PatternPlan | None:
        """The plan of a node that is a pattern or a for-each; `place` is the node's."""
        kind = node.WhichOneof("kind")
        here = place.at(kind or "")
        match kind:
            case "for_each":
                return self._for_each(node, here)
            case "debate":
                return self._debate(node, here)
            case "panel":
                return self._panel(node, here)
            case "verification":
                return self._verification(node, here)
            case "supervision":
                return self._supervision(node, here)
            case "peer_review":
                return self._peer_review(node, here)
            case _:
                raise ValueError(f"{kind} is no pattern")

    def _for_each(self, node: Node, place: Place) -> ForEachPlan | None:
        spec = node.for_each
        most = spec.most or _ITEMS
        self._at_most(spec.at_once, _MOST_AT_ONCE, place.at("at_once"))
        self._at_most(spec.most, _MOST_ITEMS, place.at("most"))
        self._at_most(spec.least, most if spec.over else len(spec.calls), place.at("least"))
        if not spec.calls:
            self._add(_MALFORMED, place.at("calls"), "there is none")
        elif len(spec.calls) > _MOST_AT_ONCE:
            self._add(_OUT_OF_RANGE, place.at("calls"), f"there are more than {_MOST_AT_ONCE}")
        elif spec.over and len(spec.calls) > 1:
            self._add(_MALFORMED, place.at("calls"), "with `over` there can be one only")
        over, calling = None, place
        if spec.over:
            found = self._expressions.items(spec.over, place.at("over"))
            over = found[0] if found else None
            item = found[1] if found else cel.DYN
            calling = place.naming({"item": item, "index": cel.INT})
        calls = [
            self._calls.compile(call, node, calling.at(f"calls[{at}]"))
            for at, call in enumerate(spec.calls)
        ]
        self._one_type(calls, place)
        if (spec.over and over is None) or None in calls:
            return None
        return ForEachPlan(
            over=over,
            calls=tuple(call for call in calls if call is not None),
            at_once=spec.at_once or _AT_ONCE,
            least=spec.least or None,
            most=most,
        )

    def _one_type(self, calls: Sequence[CallAction | None], place: Place) -> None:
        first = calls[0] if calls else None
        for at, call in enumerate(calls):
            if first and call and call.response_type != first.response_type:
                words = f"answers with {call.response_type}, the first with {first.response_type}"
                here = place.at(f"calls[{at}].method")
                self._add(FaultKind.FAULT_KIND_TYPE_MISMATCH, here, words)

    def _debate(self, node: Node, place: Place) -> DebatePlan | None:
        spec = node.debate
        question = self._question(spec.question, place)
        debaters = [completed(each) for each in spec.participants]
        people = self._several(debaters, 2, _MOST_PARTICIPANTS, node, place, "participants", {})
        judge = None
        if spec.HasField("judge"):
            judge = self._participant(completed(spec.judge), node, place.at("judge"), self._judging)
        elif spec.rule == DecisionRule.DECISION_RULE_JUDGE:
            self._add(_MALFORMED, place.at("judge"), "the rule is JUDGE, and there is none")
        if not -1 <= spec.rounds <= _MOST_ROUNDS:
            self._add(_OUT_OF_RANGE, place.at("rounds"), f"is not -1 to {_MOST_ROUNDS}")
        if spec.rule not in DecisionRule.values():
            self._add(_MALFORMED, place.at("rule"), "is no rule")
        self._at_most(spec.least, len(spec.participants), place.at("least"))
        if question is None or people is None or (spec.HasField("judge") and judge is None):
            return None
        return DebatePlan(
            question=question,
            participants=people,
            rounds=_or_default(spec.rounds, _ROUNDS),
            rule=spec.rule or DecisionRule.DECISION_RULE_MAJORITY,
            judge=judge,
            least=spec.least or len(people) // 2 + 1,
            seed=spec.seed,
        )

    def _panel(self, node: Node, place: Place) -> PanelPlan | None:
        spec = node.panel
        question = self._question(spec.question, place)
        experts = self._several(spec.experts, 1, _MOST_PARTICIPANTS, node, place, "experts", {})
        synthesizer = self._participant(
            spec.synthesizer, node, place.at("synthesizer"), self._reports
        )
        self._at_most(spec.least, len(spec.experts), place.at("least"))
        if question is None or experts is None or synthesizer is None:
            return None
        return PanelPlan(
            question=question,
            experts=experts,
            synthesizer=synthesizer,
            least=spec.least or len(experts) // 2 + 1,
        )

    def _verification(self, node: Node, place: Place) -> VerificationPlan | None:
        spec = node.verification
        question = self._question(spec.question, place)
        author = self._participant(spec.author, node, place.at("author"), self._drafting)
        verifier = self._participant(spec.verifier, node, place.at("verifier"), self._draft)
        if not 0 <= spec.enough <= 1:
            self._add(_OUT_OF_RANGE, place.at("enough"), "is not 0 to 1")
        if not -1 <= spec.revisions <= _MOST_ROUNDS:
            self._add(_OUT_OF_RANGE, place.at("revisions"), f"is not -1 to {_MOST_ROUNDS}")
        if question is None or author is None or verifier is None:
            return None
        return VerificationPlan(
            question=question,
            author=author,
            verifier=verifier,
            enough=spec.enough or 1.0,
            revisions=_or_default(spec.revisions, _ROUNDS),
        )

    def _supervision(self, node: Node, place: Place) -> SupervisionPlan | None:
        spec = node.supervision
        question = self._question(spec.question, place)
        here = place.at("supervisor")
        supervisor = self._participant(spec.supervisor, node, here, self._supervising)
        task = {"task": cel.STRING}
        workers = self._several(spec.workers, 1, _MOST_WORKERS, node, place, "workers", task)
        self._at_most(spec.most, _MOST_TASKS, place.at("most"))
        if question is None or supervisor is None or workers is None:
            return None
        return SupervisionPlan(
            question=question, supervisor=supervisor, workers=workers, most=spec.most or _TASKS
        )

    def _peer_review(self, node: Node, place: Place) -> PeerReviewPlan | None:
        spec = node.peer_review
        question = self._question(spec.question, place)
        extra = {**self._drafting, "stage": cel.STRING}
        people = self._several(
            spec.participants, 2, _MOST_PARTICIPANTS, node, place, "participants", extra
        )
        others = max(len(spec.participants) - 1, 0)
        self._at_most(spec.reviews, others, place.at("reviews"))
        if question is None or people is None:
            return None
        reviews = spec.reviews or min(_REVIEWS, others)
        return PeerReviewPlan(question=question, participants=people, reviews=reviews)

    def _question(self, source: str, place: Place) -> Program | None:
        return self._expressions.string(source, place.at("question"))

    def _several(
        self,
        participants: Sequence[Participant],
        least: int,
        most: int,
        node: Node,
        place: Place,
        name: str,
        extra: Mapping[str, StaticType],
    ) -> tuple[ParticipantPlan, ...] | None:
        if not least <= len(participants) <= most:
            words = f"there are {len(participants)}, not {least} to {most}"
            self._add(_OUT_OF_RANGE, place.at(name), words)
        seen: set[str] = set()
        made: list[ParticipantPlan | None] = []
        for at, participant in enumerate(participants):
            here = place.at(f"{name}[{at}]")
            if participant.name in seen:
                words = f"another one is called {participant.name!r} already"
                self._add(FaultKind.FAULT_KIND_DUPLICATE, here.at("name"), words)
            seen.add(participant.name)
            made.append(self._participant(participant, node, here, extra))
        return None if None in made else tuple(each for each in made if each is not None)

    def _participant(
        self,
        participant: Participant,
        node: Node,
        place: Place,
        extra: Mapping[str, StaticType],
    ) -> ParticipantPlan | None:
        if not _NAME.fullmatch(participant.name):
            words = "is not 1 to 63 letters, digits, hyphens and underscores"
            self._add(_MALFORMED, place.at("name"), words)
        naming = place.naming({**self._common, **extra})
        call = self._calls.compile(participant.call, node, naming.at("call"))
        response = self._calls.response_type(participant.call)
        opinion: Program | None = None
        sound = True
        if participant.opinion:
            static = cel.DYN if response is None else cel.message_type(response)
            here = naming.at("opinion").naming({"reply": static})
            opinion = self._expressions.message(participant.opinion, _OPINION, here)
            sound = opinion is not None
        elif response is not None and response != _OPINION:
            words = f"is empty, and the response is a {response}, not a {_OPINION}"
            self._add(FaultKind.FAULT_KIND_TYPE_MISMATCH, place.at("opinion"), words)
            sound = False
        if call is None or not sound:
            return None
        return ParticipantPlan(name=participant.name, call=call, opinion=opinion)

    def _at_most(self, given: int, most: int, place: Place) -> None:
        if given > most:
            self._add(_OUT_OF_RANGE, place, f"is more than {most:,}")

    def _add(self, kind: FaultKind.ValueType, place: Place, message: str) -> None:
        self._faults.add(kind, place.path, message)


def _list_of(name: str) -> StaticType:
    return cel.list_type(cel.message_type(name))


def _or_default(given: int, default: int) -> int:
    """What was asked for: 0 stands for the default, -1 for none."""
    return default if given == 0 else max(given, 0)
