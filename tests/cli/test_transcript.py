"""How debates are told: rounds, who changed, what does not count, the judge, and what came of it."""

from __future__ import annotations

from google.protobuf import json_format

from weft.cli import transcript
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import DebateResult, Opinion, Position, StepFailure


def part(key: str, answer: str | None = None, *errors: str, argument: str = "") -> pb.Step:
    """A part that has answered; None: it has not."""
    made = pb.Step(key=f"talk@1/{key}", node="talk", state=pb.STEP_STATE_RUNNING)
    if answer is not None:
        made.state = pb.STEP_STATE_SUCCEEDED
        made.output.type = "weft.v1.Opinion"
        said = Opinion(answer=answer, argument=argument, errors_named=errors)
        json_format.ParseDict(json_format.MessageToDict(said), made.output.json)
    return made


def lost(key: str) -> pb.Step:
    failure = StepFailure(code="UNAVAILABLE", message="gone")
    return pb.Step(key=f"talk@1/{key}", state=pb.STEP_STATE_FAILED, failure=failure)


def told(*parts: pb.Step) -> list[str]:
    return [" ".join(line.plain.split()) for line in transcript.lines(parts)]


FIRST = (part("round0/anna", "yes", argument="I say so"), part("round0/ben", "no"))


def test_a_round_has_its_votes_when_all_have_answered() -> None:
    assert told(FIRST[0], part("round0/ben")) == [
        "each by itself",
        "✓ anna yes I say so",
        "· ben",
    ]
    assert told(*FIRST)[0] == "each by itself: no 1, yes 1"


def test_a_change_is_shown_with_what_was_wrong() -> None:
    lines = told(
        *FIRST,
        part("round1/anna", "No", "it is 7 times 13", " ", argument="7 divides it"),
        part("round1/ben", "no"),
    )
    assert lines[3:] == [
        "round 1, knowing all answers: no 2",
        "✓ anna yes → No 7 divides it",
        "names: it is 7 times 13",
        "✓ ben no",
    ]


def test_a_change_that_names_nothing_is_not_counted() -> None:
    lines = told(*FIRST, part("round1/anna", "no"), part("round1/ben", "no"))
    assert lines[3:] == [
        "round 1, knowing all answers: no 1, yes 1",
        "✓ anna yes → no: not counted, since it names no error",
        "✓ ben no",
    ]


def test_who_says_nothing_or_fails_keeps_its_vote() -> None:
    first = (*FIRST, part("round0/cleo", ""), lost("round0/dan"))
    lines = told(*first, lost("round1/anna"), part("round1/ben", ""))
    assert lines == [
        "each by itself: no 1, yes 1",
        "✓ anna yes I say so",
        "✓ ben no",
        "✓ cleo abstains",
        "✗ dan UNAVAILABLE: gone",
        "round 1, knowing all answers: no 1, yes 1",
        "✗ anna UNAVAILABLE: gone",
        "✓ ben says nothing, stays with no",
    ]
    assert told(lost("round0/anna"), part("round0/ben", ""))[0] == "each by itself: nobody answers"


def test_the_judge_is_heard_in_both_orders() -> None:
    lines = told(*FIRST, part("judge/forward", "yes", argument="better"), part("judge/reverse"))
    assert lines[3:] == [
        "the judge, asked with both orders of the answers",
        "✓ forward yes better",
        "· reverse",
    ]


def test_parts_of_other_nodes_are_no_debate() -> None:
    assert transcript.is_debate([*FIRST, part("judge/forward")])
    assert not transcript.is_debate([*FIRST, part("expert/anna")])
    assert not transcript.is_debate([])


def verdict(result: DebateResult) -> list[str]:
    return [" ".join(line.plain.split()) for line in transcript.verdict(result)]


def test_a_verdict_keeps_dissent_and_says_when_the_vote_stands() -> None:
    no = Position(answer="no", votes=2, arguments=["7 divides it", "7 divides it", "it fails"])
    yes = Position(answer="yes", votes=1)
    result = DebateResult(
        answer="yes", consensus=True, confidence=0.6, baseline_answer="Yes", baseline_confidence=0.6,
        flips_from=1, stopped="rounds", positions=[no, yes], dissent=[no], rounds=[{}, {}, {}],
    )  # fmt: skip
    assert verdict(result) == [
        "yes",
        "votes no 2, yes 1",
        "dissent no 2: 7 divides it; it fails",
        "confidence 0.60, by how far the independent answers agree",
        "changes 0 came to it after the first round, 1 left it",
        "first vote Yes, 0.60",
        "stopped rounds, after 3 rounds",
        "The independent vote stands: only a judge, or another rule, lets it be overturned.",
    ]
    undecided = DebateResult(stopped="vote", positions=[no, yes], dissent=[no, yes], rounds=[{}])
    assert verdict(undecided) == [
        "no consensus",
        "votes no 2, yes 1",
        "dissent no 2: 7 divides it; it fails",
        "dissent yes 1",
        "first vote undecided",
        "stopped vote, after 1 round",
    ]
