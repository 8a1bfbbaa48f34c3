"""Plans of patterns without a mesh, and courses carried out by functions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message

from weft.agents.orchestrator.plan.model import CallAction, RetryPlan, Scope
from weft.agents.orchestrator.plan.patterns import ParticipantPlan
from weft.agents.orchestrator.run.composite import Composite, Done, Finished, Part
from weft.v1.workflow_pb2 import Opinion, StepFailure


@dataclass(frozen=True)
class Text:
    """An expression of a string that is always the same."""

    source: str = "'why?'"

    def truth(self, scope: Scope) -> bool:
        raise AssertionError

    def text(self, scope: Scope) -> str:
        return "why?"

    def message(self, scope: Scope) -> Message:
        raise AssertionError

    def items(self, scope: Scope) -> Sequence[object]:
        raise AssertionError


def person(name: str) -> ParticipantPlan:
    none = timedelta(0)
    retry = RetryPlan(attempts=1, first_pause=none, max_pause=none, codes=frozenset())
    call = CallAction(
        agent=name,
        path="/lab.v1.LabService/Think",
        request=Text(),
        response_type="weft.v1.Opinion",
        streams=False,
        timeout=none,
        retry=retry,
    )
    return ParticipantPlan(name=name, call=call, opinion=None)


def people(names: str) -> tuple[ParticipantPlan, ...]:
    return tuple(person(name) for name in names.split())


def says(answer: str = "", *errors: str, **more: Any) -> Opinion:
    return Opinion(answer=answer, errors_named=errors, **more)


LOST = StepFailure(code="UNAVAILABLE", message="gone")

Said = str | Opinion | StepFailure
Script = Mapping[str, Said] | Callable[[Part], Said]


class Table:
    """Carries out a pattern; keeps what was asked, by key of part, and what was answered."""

    def __init__(self, pattern: Composite, script: Script, *, seed: int = 7) -> None:
        self.pattern, self.seed, self._script = pattern, seed, script
        self.asked: dict[str, Part] = {}
        self.done: dict[str, Done] = {}

    def run(self, chance: random.Random | None = None, *, forgets: bool = False) -> Finished:
        """To the end, one part after the other, in an order by chance; `forgets` begins anew after each."""
        course = self.pattern.begin({}, self.seed)
        while True:
            following = course.next(self.done)
            if isinstance(following, Finished):
                return following
            todo = sorted(part.key for part in following if part.key not in self.done)
            assert todo, "nothing is to be done, and it has not ended"
            for part in following:
                before = self.asked.setdefault(part.key, part)
                assert before == part, "a part stays as it was begun"
            key = chance.choice(todo) if chance else todo[0]
            self.done[key] = self._answer(self.asked[key])
            if forgets:
                course = self.pattern.begin({}, self.seed)

    def _answer(self, part: Part) -> Done:
        said = self._script(part) if callable(self._script) else self._script[part.key]
        if isinstance(said, StepFailure):
            return Done(failure=said)
        return Done(message=said if isinstance(said, Opinion) else says(said))

    def seen(self, key: str, name: str = "peers") -> Any:
        return self.asked[key].variables[name]


def rounds(*each: Mapping[str, Said]) -> dict[str, Said]:
    """What participants of a debate say, by round and name. Who is silent in a later round says what it said before."""
    made: dict[str, Said] = {}
    for number in range(6):
        for name, first in each[0].items():
            now = each[number] if number < len(each) else {}
            made[f"round{number}/{name}"] = now.get(
                name, made.get(f"round{number - 1}/{name}", first)
            )
    return made


def result(finished: Finished) -> Any:
    assert finished.failure is None, finished.failure
    return finished.output


def failure(finished: Finished) -> StepFailure:
    assert finished.failure is not None
    return finished.failure
