from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from weft import rpc
from weft.agents.support import SolutionAgent
from weft.agents.support.prose import bare, marks, sentences
from weft.agents.support.solution import Brief, Draft, Run
from weft.agents.support.solution.extractive import ExtractiveComposer
from weft.rpc.testing import channel_for
from weft.support.v1 import solution_pb2, solution_pb2_grpc, support_pb2
from weft.support.v1.support_pb2 import Answer, Finding, Passage

ARRIVAL = Passage(
    passage_id="card-arrival#time",
    article_id="card-arrival",
    title="When your card arrives",
    heading="How long delivery takes",
    text="Delivery takes up to 5 working days. Weekends do not count.\nAbroad it takes 10 days.",
    score=4.0,
)
FEES = Passage(
    passage_id="fees#express",
    article_id="fees",
    title="Fees",
    heading="Express",
    text="Express delivery of a card costs 9 euros. Standard post is free.",
    score=3.0,
)
WEATHER = Passage(passage_id="w#top", article_id="w", title="Weather", text="It rains.", score=1.0)


@pytest_asyncio.fixture
async def solution() -> AsyncIterator[solution_pb2_grpc.SolutionServiceAsyncStub]:
    async with channel_for(
        solution_pb2_grpc.add_SolutionServiceServicer_to_server, SolutionAgent()
    ) as channel:
        yield solution_pb2_grpc.SolutionServiceStub(channel)


async def compose(
    solution: solution_pb2_grpc.SolutionServiceAsyncStub,
    question: str,
    *passages: Passage,
    findings: tuple[Finding, ...] = (),
) -> Answer:
    response = await solution.Compose(
        solution_pb2.ComposeRequest(question=question, passages=passages, findings=findings)
    )
    return response.answer


async def test_sentences_are_quoted_as_they_stand_and_cited(
    solution: solution_pb2_grpc.SolutionServiceAsyncStub,
) -> None:
    answer = await compose(solution, "How long does delivery of a card take?", ARRIVAL, WEATHER)
    assert answer.text.startswith("Delivery takes up to 5 working days. [1]")
    assert answer.origin == support_pb2.ORIGIN_EXTRACTIVE
    assert answer.confidence > 0.5
    (citation,) = answer.citations
    assert (citation.number, citation.passage_id) == (1, "card-arrival#time")
    assert (citation.article_id, citation.title) == ("card-arrival", "When your card arrives")
    assert citation.quote in ARRIVAL.text


async def test_a_second_passage_adds_what_the_first_lacks(
    solution: solution_pb2_grpc.SolutionServiceAsyncStub,
) -> None:
    answer = await compose(
        solution,
        "How many working days does delivery take, and what does express cost?",
        ARRIVAL,
        FEES,
    )
    *_, last = answer.citations
    assert answer.citations[0].passage_id == "card-arrival#time"
    assert last.passage_id == "fees#express"
    assert answer.text.endswith(f"Express delivery of a card costs 9 euros. [{last.number}]")


@pytest.mark.parametrize("passages", [(), (WEATHER,), (Passage(passage_id="e#top", title="Card"),)])
async def test_with_no_passage_that_fits_there_is_no_answer(
    solution: solution_pb2_grpc.SolutionServiceAsyncStub, passages: tuple[Passage, ...]
) -> None:
    answer = await compose(solution, "How long does delivery take?", *passages)
    assert (answer.text, answer.confidence, len(answer.citations)) == ("", 0, 0)


async def test_flagged_sentences_are_left_out(
    solution: solution_pb2_grpc.SolutionServiceAsyncStub,
) -> None:
    question = "How many working days does delivery of a card take?"
    whole = sentences((await compose(solution, question, ARRIVAL)).text)
    assert len(whole) > 1
    finding = Finding(check="tone", detail="It is rude.", sentence=0)
    revised = await compose(solution, question, ARRIVAL, findings=(finding,))
    assert [bare(one) for one in sentences(revised.text)] == [bare(one) for one in whole[1:]]
    everything = tuple(Finding(check="tone", sentence=number) for number in range(len(whole)))
    assert (await compose(solution, question, ARRIVAL, findings=everything)).text == ""


async def test_a_passage_that_holds_citation_marks_forges_none(
    solution: solution_pb2_grpc.SolutionServiceAsyncStub,
) -> None:
    forged = Passage(
        passage_id="f#top", title="Delivery", text="Delivery is free [7]. Delivery takes 5 days."
    )
    answer = await compose(solution, "How long is delivery?", forged)
    assert answer.text == "Delivery takes 5 days. [1]"


async def test_bad_requests_name_the_field(
    solution: solution_pb2_grpc.SolutionServiceAsyncStub,
) -> None:
    for request, field in (
        (solution_pb2.ComposeRequest(), "question"),
        (solution_pb2.ComposeRequest(question="x", passages=[WEATHER] * 51), "passages"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await solution.Compose(request)
        error = rpc.error_from_call(failed.value)
        assert isinstance(error, rpc.InvalidArgument)
        assert [path for path, _ in error.violations] == [field]


async def test_another_composer_takes_the_place_of_the_rules() -> None:
    class Model:
        async def compose(self, brief: Brief) -> Draft:
            run = Run(
                sentences=("Five days.",), passage=brief.passages[0], quote="up to 5 working days"
            )
            return Draft(runs=(run,), origin=support_pb2.ORIGIN_MODEL, confidence=0.9)

    agent = SolutionAgent(Model())
    async with channel_for(
        solution_pb2_grpc.add_SolutionServiceServicer_to_server, agent
    ) as channel:
        answer = await compose(solution_pb2_grpc.SolutionServiceStub(channel), "How long?", ARRIVAL)
    assert (answer.text, answer.origin) == ("Five days. [1]", support_pb2.ORIGIN_MODEL)


words = st.sampled_from(
    ["card", "delivery", "takes", "days", "express", "fee", "PIN", "the", "5", "euros"]
)
prose = st.lists(
    st.lists(words, min_size=1, max_size=8).map(lambda some: f"{' '.join(some).capitalize()}."),
    min_size=1,
    max_size=4,
).map(" ".join)
passages = st.lists(
    st.builds(
        Passage,
        passage_id=st.uuids().map(str),
        title=prose,
        heading=prose,
        text=prose,
        score=st.floats(0, 9),
    ),
    max_size=6,
)


@settings(max_examples=40)
@given(prose, passages)
async def test_whatever_the_passages_each_sentence_stands_in_its_quotation(
    question: str, given_passages: list[Passage]
) -> None:
    brief = Brief(
        question=question,
        passages=given_passages,
        assessment=support_pb2.Assessment(),
        findings=(),
    )
    request = solution_pb2.ComposeRequest(question=question, passages=given_passages)
    agent = SolutionAgent()
    answer = (await agent.Compose(request, None)).answer  # type: ignore[arg-type]
    again = (await agent.Compose(request, None)).answer  # type: ignore[arg-type]
    draft = await ExtractiveComposer().compose(brief)
    assert answer == again
    assert 0 <= answer.confidence <= 1
    assert bool(answer.text) == bool(draft.runs) == (answer.confidence > 0)
    cited = {citation.number: citation for citation in answer.citations}
    texts = {passage.passage_id: passage.text for passage in given_passages}
    for sentence in sentences(answer.text):
        (number,) = marks(sentence)
        assert bare(sentence) in cited[number].quote
        assert cited[number].quote in texts[cited[number].passage_id]
