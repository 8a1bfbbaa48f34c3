"""What the supervisor itself says to customers. Fixed sentences, so that equal questions get equal answers."""

from __future__ import annotations

from collections.abc import Sequence

from weft.agents.support.prose import sentences
from weft.support.v1.support_pb2 import ORIGIN_EXTRACTIVE, Answer, Passage

NO_ANSWER = "I have found no reliable answer to your question."
PERSON_ANSWERS = "A person of our help desk will answer you in this conversation."
PERSON_LOOKS = (
    "A person of our help desk will look at your request too and write to you in this conversation."
)
NO_PERSON = (
    "Our help desk could not be reached just now, so nobody has been told of your request. "
    "Please ask again in a few minutes."
)
PERSON_DECIDES = (
    "Your request is about money, so a person of our help desk decides on it. "
    "You will hear of the decision in this conversation."
)
NOT_APPROVED = "Your request was looked at, and a person of our help desk will answer you about it."
NOT_COMPOSED = "No answer was composed: articles are pointed at."
_MOST_ARTICLES = 3


def being_decided() -> Answer:
    """The answer while a person decides on the one that was found."""
    return Answer(text=PERSON_DECIDES)


def decided(answer: Answer | None) -> Answer:
    """The answer that a person approved, or where none was approved."""
    return answer if answer is not None else Answer(text=NOT_APPROVED)


def without_answer(*, ticket: bool) -> Answer:
    """The answer when there is none."""
    return Answer(text=f"{NO_ANSWER} {PERSON_ANSWERS if ticket else NO_PERSON}")


def with_ticket(answer: Answer, *, ticket: bool) -> Answer:
    """An answer that a person looks at too, or should have."""
    told = Answer()
    told.CopyFrom(answer)
    told.text = f"{answer.text} {PERSON_LOOKS if ticket else NO_PERSON}"
    return told


def pointing_at(passages: Sequence[Passage]) -> Answer:
    """The articles that were found, for a customer to read, when no answer could be composed."""
    answer = Answer(origin=ORIGIN_EXTRACTIVE, degraded=NOT_COMPOSED)
    written = ["I could not compose an answer just now."]
    firsts = {passage.article_id: passage for passage in reversed(passages)}
    best = [passage for passage in passages if firsts[passage.article_id] is passage]
    for number, passage in enumerate(best[:_MOST_ARTICLES], start=1):
        written.append(f'Our article "{passage.title}" may help. [{number}]')
        answer.citations.add(
            number=number,
            passage_id=passage.passage_id,
            article_id=passage.article_id,
            title=passage.title,
            quote=next(iter(sentences(passage.text)), ""),
        )
    answer.text = " ".join(written)
    return answer
