"""Debates as people follow them: who said what in which round, who changed its mind, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from google.protobuf import json_format

from weft.cli import steps
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import DebateResult, Opinion, Position

if TYPE_CHECKING:
    from rich.text import Text

_PART: Final = re.compile(r"[^/]+/round(\d+)/([^/]+)")
_JUDGE: Final = re.compile(r"[^/]+/judge/([^/]+)")
_ANSWER_WIDTH: Final = 12
_RESULT: Final = "weft.v1.DebateResult"
_OPINION: Final = "weft.v1.Opinion"


def is_debate(parts: Sequence[pb.Step]) -> bool:
    """Whether parts of a step are those of a debate."""
    return bool(parts) and all(_PART.fullmatch(e.key) or _JUDGE.fullmatch(e.key) for e in parts)


def lines(parts: Sequence[pb.Step]) -> Iterator[Text]:
    """The transcript of a debate, as far as it has come; `parts` are those of its step."""
    from rich.text import Text

    from weft.agents.orchestrator.patterns.answers import counts
    from weft.agents.orchestrator.patterns.changes import counted

    counting: dict[str, Opinion] = {}
    for number, spoken in enumerate(_rounds(parts)):
        words = "  each by itself" if number == 0 else f"  round {number}, knowing all answers"
        said = {name: each for name, step in spoken.items() if (each := opinion(step))}
        after = {name: counted(counting.get(name, Opinion()), each) for name, each in said.items()}
        if number == 0:
            after = {name: each for name, each in said.items() if each.answer.strip()}
        title = Text(words, style="dim")
        if all(steps.over(step) for step in spoken.values()):
            votes = counts({**counting, **after}.values())
            title.append(f": {tally(votes)}" if votes else ": nobody answers", "dim")
        yield title
        for name, step in spoken.items():
            told, errors = _told(counting.get(name), said.get(name), after.get(name))
            yield steps.row(step, f"  {name}", told)
            for error in errors:
                yield Text(f"{' ' * steps.TOLD_AT}names: {error}", style="dim")
        counting |= after
    verdicts = [step for step in parts if _JUDGE.fullmatch(step.key)]
    if verdicts:
        yield Text("  the judge, asked with both orders of the answers", style="dim")
    for step in verdicts:
        yield steps.row(step, f"  {steps.name(step).rpartition('/')[2]}", _plain(opinion(step)))


def verdict(result: DebateResult) -> Iterator[Text]:
    """What came of a debate."""
    from rich.text import Text

    from weft.agents.orchestrator.patterns.answers import normal

    answer = normal(result.answer)
    yield Text(result.answer if result.consensus else "no consensus", style="bold")
    yield _fact("votes", ", ".join(f"{each.answer} {each.votes}" for each in result.positions))
    for position in result.dissent:
        yield _fact("dissent", _dissent(position))
    if result.consensus:
        yield _fact(
            "confidence", f"{result.confidence:.2f}, by how far the independent answers agree"
        )
        came = f"{result.flips_to} came to it after the first round, {result.flips_from} left it"
        yield _fact("changes", came)
    baseline = f"{result.baseline_answer}, {result.baseline_confidence:.2f}"
    yield _fact("first vote", baseline if result.baseline_answer else "undecided")
    yield _fact("stopped", f"{result.stopped}, after {_rounds_of(len(result.rounds))}")
    leading = [normal(each.answer) for each in result.positions[:1]]
    if result.consensus and leading != [answer] and answer == normal(result.baseline_answer):
        yield Text(
            "The independent vote stands: only a judge, or another rule, lets it be overturned.",
            style="yellow",
        )


def result_of(run: pb.Run) -> DebateResult | None:
    """What a run gave, where that is the result of a debate."""
    if run.output.type != _RESULT:
        return None
    return json_format.ParseDict(
        steps.value(run.output), DebateResult(), ignore_unknown_fields=True
    )


def opinion(step: pb.Step) -> Opinion | None:
    """What a participant said; None: nothing yet, or it failed."""
    if step.output.type != _OPINION:
        return None
    return json_format.ParseDict(steps.value(step.output), Opinion(), ignore_unknown_fields=True)


def tally(votes: Mapping[str, int]) -> str:
    """Votes by answer, in words."""
    return ", ".join(f"{answer} {count}" for answer, count in votes.items())


def _rounds(parts: Sequence[pb.Step]) -> list[dict[str, pb.Step]]:
    """Parts by name, round by round, in the order of names."""
    found: dict[int, dict[str, pb.Step]] = {}
    for step in parts:
        if part := _PART.fullmatch(step.key):
            found.setdefault(int(part[1]), {})[part[2]] = step
    return [dict(sorted(found[number].items())) for number in sorted(found)]


def _told(
    former: Opinion | None, said: Opinion | None, now: Opinion | None
) -> tuple[str | None, Sequence[str]]:
    """What is to be said of an opinion, and the errors to show; None: what is said of any step."""
    from weft.agents.orchestrator.patterns.answers import normal

    if said is None:
        return None, ()
    answer = said.answer.strip()
    if former is None or normal(answer) == normal(former.answer):
        # Whoever stays with its answer is heard again only where it says something new.
        told = said.argument if former is None or former.argument != said.argument else ""
        return _plain(said, told), ()
    if not answer:
        return f"says nothing, stays with {former.answer}", ()
    change = f"{former.answer} → {answer}"
    if now is None or normal(now.answer) != normal(answer):
        return f"{change}: not counted, since it names no error", ()
    return _answered(change, said.argument), [each for each in said.errors_named if each.strip()]


def _plain(said: Opinion | None, argument: str | None = None) -> str | None:
    if said is None:
        return None
    told = said.argument if argument is None else argument
    return _answered(said.answer.strip() or "abstains", told)


def _answered(answer: str, argument: str) -> str:
    flat = " ".join(argument.split())
    return f"{answer.ljust(_ANSWER_WIDTH)}{flat}".rstrip() if flat else answer


def _dissent(position: Position) -> str:
    arguments = "; ".join(" ".join(each.split()) for each in dict.fromkeys(position.arguments))
    return f"{position.answer} {position.votes}" + (f": {arguments}" if arguments else "")


def _fact(name: str, words: str) -> Text:
    from rich.text import Text

    return Text.assemble((f"{name:<12}", "dim"), words)


def _rounds_of(count: int) -> str:
    return f"{count} round" if count == 1 else f"{count} rounds"
