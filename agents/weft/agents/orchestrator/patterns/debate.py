"""Several agents answer independently, see what the others said, and vote.

docs/patterns.md says which rules it follows and where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weft.agents.orchestrator.patterns import judging
from weft.agents.orchestrator.patterns.agreement import confidence
from weft.agents.orchestrator.patterns.answers import counts, normal, positions
from weft.agents.orchestrator.patterns.asking import Heard, answered, ask, hear, too_few
from weft.agents.orchestrator.patterns.changes import counted, supported
from weft.agents.orchestrator.patterns.shuffling import as_seen
from weft.agents.orchestrator.patterns.voting import vote
from weft.agents.orchestrator.plan.model import Scope
from weft.agents.orchestrator.plan.patterns import DebatePlan, ParticipantPlan
from weft.agents.orchestrator.run.composite import Done, Finished, Part
from weft.v1.workflow_pb2 import DebateResult, DebateRound, DecisionRule, Opinion

_GUARDED = frozenset(
    {
        DecisionRule.DECISION_RULE_MAJORITY,
        DecisionRule.DECISION_RULE_RANKED,
        DecisionRule.DECISION_RULE_WEIGHTED,
    }
)


class Debate:
    """The composite of debates. Parts: "round0/NAME", "round1/NAME" and so on, "judge/forward", "judge/reverse"."""

    def __init__(self, plan: DebatePlan) -> None:
        self._plan = plan

    def begin(self, scope: Scope, seed: int) -> _Course:
        """Begins a visit. Raises ExpressionFailed where the question cannot be computed."""
        return _Course(self._plan, self._plan.question.text(scope), self._plan.seed or seed)


@dataclass(frozen=True, slots=True)
class _Round:
    """A round that has ended: what was said in it, and the opinions that count after it, by name."""

    said: Heard
    counting: Mapping[str, Opinion]


class _Course:
    def __init__(self, plan: DebatePlan, question: str, seed: int) -> None:
        self._plan, self._question, self._seed = plan, question, seed
        self._rounds: list[_Round] = []

    def next(self, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        if not self._rounds:
            first = self._first(done)
            if not isinstance(first, _Round):
                return first
            self._rounds.append(first)
        while not (stopped := self._stopped()):
            names = list(self._rounds[-1].counting)
            number = len(self._rounds)
            heard = hear(((name, _key(number, name)) for name in names), done)
            if heard.open:
                return self._parts(number, names)
            former = self._rounds[-1].counting
            counting = {
                name: counted(each, heard.opinions.get(name)) for name, each in former.items()
            }
            self._rounds.append(_Round(heard, counting))
        return self._decide(stopped, done)

    # Rounds.

    def _first(self, done: Mapping[str, Done]) -> _Round | Sequence[Part] | Finished:
        """The independent round. Who does not answer in it takes no part: a later answer would not be independent."""
        names = [each.name for each in self._plan.participants]
        heard = hear(((name, _key(0, name)) for name in names), done)
        opinions = answered(heard)
        if len(opinions) + len(heard.open) < self._plan.least:
            return too_few(len(opinions) + len(heard.open), self._plan.least, heard.failures)
        if heard.open:
            return self._parts(0, names)
        if not opinions:
            return too_few(0, 1, heard.failures)
        return _Round(heard, opinions)

    def _parts(self, number: int, names: Sequence[str]) -> list[Part]:
        shown = list(self._rounds[-1].counting.values()) if number else []
        return [
            ask(
                each,
                _key(number, each.name),
                self._question,
                turn=number,
                peers=as_seen(shown, f"{self._seed}/{number}/{each.name}"),
            )
            for each in self._plan.participants
            if each.name in names
        ]

    def _stopped(self) -> str:
        """Why there is no further round; empty: there is one."""
        tallies = [counts(each.counting.values()) for each in self._rounds[-2:]]
        if len(tallies[-1]) == 1:
            return "unanimous"
        if self._plan.rounds == 0:
            return "vote"
        if len(tallies) > 1 and tallies[0] == tallies[1]:
            return "stable"
        return "rounds" if len(self._rounds) > self._plan.rounds else ""

    # The decision.

    def _decide(self, stopped: str, done: Mapping[str, Done]) -> Sequence[Part] | Finished:
        rule = self._plan.rule
        baseline = vote(_of_votes(rule), list(self._rounds[0].counting.values())).winner
        outcome = vote(rule, list(self._rounds[-1].counting.values()))
        answer, open_ = outcome.winner, outcome.tied
        if rule in _GUARDED and baseline and answer not in {"", baseline}:
            # What was decided independently is left only where the change is supported, and a judge confirms it.
            open_ = (baseline, answer) if self._supported(answer) else ()
            answer = baseline
        if open_ and self._plan.judge is not None:
            chosen = self._judge(self._plan.judge, open_, done)
            if not isinstance(chosen, str):
                return chosen
            answer = chosen or (baseline if rule in _GUARDED else "")
        elif open_:
            answer = baseline
        return Finished(output=self._result(stopped, answer, baseline))

    def _supported(self, answer: str) -> bool:
        return supported(answer, [each.counting for each in self._rounds])

    def _judge(
        self, judge: ParticipantPlan, between: Sequence[str], done: Mapping[str, Done]
    ) -> str | Sequence[Part]:
        """What the judge chooses, normalised; empty: it has no verdict."""
        first, last = (
            list(self._rounds[number].counting.values()) for number in (0, len(self._rounds) - 1)
        )
        held = counts(last)
        opinions = [each for each in last if normal(each.answer) in between]
        # An answer that all have left is judged by what was said for it at first.
        left = [answer for answer in between if answer not in held]
        opinions += [each for each in first if normal(each.answer) in left]
        shown = as_seen(opinions, f"{self._seed}/judge")
        for each in shown:
            each.ClearField("votes")  # a judge would follow the majority
        chosen = judging.verdict(shown, done)
        if chosen is None:
            return judging.parts(judge, self._question, len(self._rounds), shown)
        return chosen

    def _result(self, stopped: str, answer: str, baseline: str) -> DebateResult:
        first, last = self._rounds[0].counting, self._rounds[-1].counting
        independent = counts(first.values())
        held = {name: (normal(first[name].answer), normal(last[name].answer)) for name in first}
        shown = positions(last.values())
        words = {normal(each.answer): each.answer.strip() for each in first.values()}
        words.update((normal(each.answer), each.answer) for each in shown)
        return DebateResult(
            answer=words.get(answer, ""),
            consensus=bool(answer),
            confidence=confidence(answer, independent),
            baseline_answer=words.get(baseline, ""),
            baseline_confidence=confidence(baseline, independent),
            flips_to=sum(1 for was, now in held.values() if was != answer == now),
            flips_from=sum(1 for was, now in held.values() if was == answer != now),
            stopped=stopped,
            positions=shown,
            dissent=[each for each in shown if normal(each.answer) != answer],
            rounds=[
                DebateRound(number=number, opinions=each.said.opinions, failures=each.said.failures)
                for number, each in enumerate(self._rounds)
            ],
        )


def _of_votes(rule: DecisionRule.ValueType) -> DecisionRule.ValueType:
    """The rule of the baseline: a judge's decision is compared with the majority."""
    if rule == DecisionRule.DECISION_RULE_JUDGE:
        return DecisionRule.DECISION_RULE_MAJORITY
    return rule


def _key(number: int, name: str) -> str:
    return f"round{number}/{name}"
