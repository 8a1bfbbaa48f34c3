"""The supervisor with each agent of its fleet well, down, slow and failing; every call is real gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
from tests.ports import free_port

from weft import embedded, rpc
from weft.agents.support import EscalationAgent, Fleet, QualityAgent, SolutionAgent, SupervisorAgent
from weft.postgres import Database
from weft.rpc.testing import channel_for, wait_until
from weft.support.v1 import (
    escalation_pb2,
    escalation_pb2_grpc,
    quality_pb2,
    quality_pb2_grpc,
    research_pb2,
    research_pb2_grpc,
    solution_pb2,
    solution_pb2_grpc,
    supervisor_pb2,
    supervisor_pb2_grpc,
    support_pb2,
    triage_pb2,
    triage_pb2_grpc,
)
from weft.support.v1.support_pb2 import Passage

DRAGONS = "Do dragons eat houses or castles?"
QUESTION = "How long does delivery of my card take?"
PASSAGE = Passage(
    passage_id="card-arrival#time",
    article_id="card-arrival",
    title="When your card arrives",
    heading="Delivery",
    text="Delivery of a card takes up to 5 working days. Weekends do not count.",
    score=3.0,
)
ANSWER = "Delivery of a card takes up to 5 working days. [1] Weekends do not count. [1]"
PERSON_LOOKS = "A person of our help desk will look at your request too"


async def about_cards(request: triage_pb2.ClassifyRequest, context: Any) -> Any:
    """Triage that finds every request to be about cards, and urgent if something was stolen."""
    urgent = "stolen" in request.text
    return triage_pb2.ClassifyResponse(
        assessment=support_pb2.Assessment(
            intent=support_pb2.Scored(value="card_arrival", confidence=0.9),
            urgency=support_pb2.URGENCY_CRITICAL if urgent else support_pb2.URGENCY_NORMAL,
        )
    )


class Library:
    """A knowledge base of one passage that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def search(self, request: research_pb2.SearchRequest, context: Any) -> Any:
        self.asked.append(request.query)
        fits = "deliver" in request.query
        return research_pb2.SearchResponse(passages=[PASSAGE] if fits else [])


SERVICES: dict[str, tuple[Callable[..., None], type, str]] = {
    "triage": (
        triage_pb2_grpc.add_TriageServiceServicer_to_server,
        triage_pb2_grpc.TriageServiceStub,
        "Classify",
    ),
    "research": (
        research_pb2_grpc.add_ResearchServiceServicer_to_server,
        research_pb2_grpc.ResearchServiceStub,
        "Search",
    ),
    "solution": (
        solution_pb2_grpc.add_SolutionServiceServicer_to_server,
        solution_pb2_grpc.SolutionServiceStub,
        "Compose",
    ),
    "quality": (
        quality_pb2_grpc.add_QualityServiceServicer_to_server,
        quality_pb2_grpc.QualityServiceStub,
        "Review",
    ),
    "escalation": (
        escalation_pb2_grpc.add_EscalationServiceServicer_to_server,
        escalation_pb2_grpc.EscalationServiceStub,
        "OpenTicket",
    ),
}
NAMES = list(SERVICES)
DOWN = None


def behaving(name: str, behaviour: Callable[[Any, Any], Any]) -> object:
    """An agent whose one skill does what `behaviour` does."""
    add, _, skill = SERVICES[name]
    base = getattr(
        __import__(add.__module__, fromlist=["x"]), f"{name.capitalize()}ServiceServicer"
    )
    return type("Behaving", (base,), {skill: lambda _, *call: behaviour(*call)})()


async def hang(request: Any, context: Any) -> None:
    await asyncio.Event().wait()


async def fail(request: Any, context: Any) -> None:
    raise ValueError("a bug with a secret in it")


class Stage:
    """A supervisor on a fleet of which each agent can be replaced."""

    def __init__(self, store: Database, redis_url: str) -> None:
        self.store = store
        self.redis_url = redis_url

    @asynccontextmanager
    async def __call__(
        self, **instead: object
    ) -> AsyncIterator[supervisor_pb2_grpc.SupervisorServiceAsyncStub]:
        agents: dict[str, object] = {
            "triage": behaving("triage", about_cards),
            "research": behaving("research", Library().search),
            "solution": SolutionAgent(),
            "quality": QualityAgent(),
            "escalation": EscalationAgent(self.store),
            **instead,
        }
        async with AsyncExitStack() as stack:
            stubs = {}
            for name, agent in agents.items():
                add, stub, _ = SERVICES[name]
                serving: AbstractAsyncContextManager[rpc.Channel] = (
                    rpc.Channel(f"127.0.0.1:{free_port()}")  # where nobody ever listens
                    if agent is DOWN
                    else channel_for(add, agent)
                )
                stubs[name] = stub(await stack.enter_async_context(serving))
            client = await stack.enter_async_context(embedded.redis_client(self.redis_url))
            supervisor = SupervisorAgent(Fleet(**stubs), client)
            channel = await stack.enter_async_context(
                channel_for(supervisor_pb2_grpc.add_SupervisorServiceServicer_to_server, supervisor)
            )
            yield supervisor_pb2_grpc.SupervisorServiceStub(channel)

    async def tickets(self) -> list[escalation_pb2.Ticket]:
        listed = await EscalationAgent(self.store).ListTickets(
            escalation_pb2.ListTicketsRequest(),
            None,  # type: ignore[arg-type]
        )
        return list(listed.tickets)


@pytest_asyncio.fixture
async def stage(store: Database, redis_url: str) -> Stage:
    return Stage(store, redis_url)


async def handle(
    supervisor: Any, text: str = QUESTION, conversation: str = "", *, within: float = 10
) -> supervisor_pb2.HandleResponse:
    request = supervisor_pb2.HandleRequest(text=text, conversation_id=conversation)
    response: supervisor_pb2.HandleResponse = await supervisor.Handle(request, timeout=within)
    return response


def route(response: supervisor_pb2.HandleResponse) -> list[tuple[str, str]]:
    return [
        (
            step.agent.removeprefix("support-"),
            support_pb2.StepOutcome.Name(step.outcome).removeprefix("STEP_OUTCOME_"),
        )
        for step in response.route
    ]


async def test_a_question_is_answered_with_its_route(stage: Stage) -> None:
    async with stage() as supervisor:
        response = await handle(supervisor)
    assert response.answer.text == ANSWER
    assert response.answer.citations[0].passage_id == "card-arrival#time"
    assert response.assessment.intent.value == "card_arrival"
    assert response.verdict.decision == support_pb2.DECISION_PASS
    assert (response.ticket_id, list(response.missing)) == ("", [])
    assert route(response) == [(name, "OK") for name in NAMES[:4]]
    assert all(step.HasField("duration") and step.summary for step in response.route)
    assert await stage.tickets() == []


async def test_watch_shows_every_step_and_gives_the_same_answer(stage: Stage) -> None:
    async with stage() as supervisor:
        handled = await handle(supervisor)
        request = supervisor_pb2.WatchRequest(request=supervisor_pb2.HandleRequest(text=QUESTION))
        *steps, last = [one async for one in supervisor.Watch(request, timeout=10)]
    assert last.result.answer == handled.answer
    seen = [(one.step.skill, one.step.outcome) for one in steps]
    started, ended = support_pb2.STEP_OUTCOME_STARTED, support_pb2.STEP_OUTCOME_OK
    skills = ["Classify", "Search", "Compose", "Review"]
    assert seen == [(skill, outcome) for skill in skills for outcome in (started, ended)]
    assert [one.step for one in steps if one.step.outcome == ended] == list(last.result.route)


async def test_a_watch_that_is_given_up_ends_the_work(stage: Stage) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def until_cancelled(request: Any, context: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with stage(research=behaving("research", until_cancelled)) as supervisor:
        request = supervisor_pb2.WatchRequest(request=supervisor_pb2.HandleRequest(text=QUESTION))
        call = supervisor.Watch(request, timeout=10)
        assert await call.read()
        await wait_until(begun.is_set)
        call.cancel()
        await wait_until(ended.is_set)


async def test_no_article_means_a_person(stage: Stage) -> None:
    async with stage() as supervisor:
        response = await handle(supervisor, DRAGONS)
    (ticket,) = await stage.tickets()
    assert response.ticket_id == ticket.ticket_id
    assert ticket.question == DRAGONS
    assert ticket.conversation_id == response.conversation_id
    assert ticket.reason == "No article fits the question."
    assert "A person of our help desk will answer you" in response.answer.text
    assert response.answer.confidence == 0
    skipped = [("solution", "SKIPPED"), ("quality", "SKIPPED"), ("escalation", "OK")]
    assert route(response)[2:] == skipped


async def test_money_at_risk_gets_an_answer_and_a_person(stage: Stage) -> None:
    async with stage() as supervisor:
        response = await handle(supervisor, "My card was stolen on its delivery!")
    (ticket,) = await stage.tickets()
    assert ticket.priority == support_pb2.URGENCY_CRITICAL
    assert "at risk" in ticket.reason
    assert response.answer.citations
    assert PERSON_LOOKS in response.answer.text


async def test_an_uncertain_answer_gets_a_person_too(stage: Stage) -> None:
    async with stage() as supervisor:
        response = await handle(
            supervisor, "My neighbour saw a card in a delivery van near Oxford in heavy rain"
        )
    (ticket,) = await stage.tickets()
    assert "uncertain" in ticket.reason
    assert response.answer.citations
    assert PERSON_LOOKS in response.answer.text


@pytest.mark.parametrize("trouble", [DOWN, fail])
@pytest.mark.parametrize("name", NAMES[:4])
async def test_with_any_agent_down_the_answer_is_useful_and_says_what_is_missing(
    stage: Stage, name: str, trouble: Any
) -> None:
    instead = behaving(name, trouble) if trouble else DOWN
    async with stage(**{name: instead}) as supervisor:
        response = await handle(supervisor)
    assert (name, "FAILED") in route(response)
    (missing,) = response.missing
    assert f"support-{name} {'failed' if trouble else 'is not available'}" in missing
    (ticket,) = await stage.tickets()
    assert ticket.ticket_id == response.ticket_id
    assert missing in ticket.reason
    assert "secret" not in str(response)
    if name == "research":
        assert "A person of our help desk will answer you" in response.answer.text
    else:
        assert response.answer.citations[0].article_id == "card-arrival"
        assert PERSON_LOOKS in response.answer.text
    if name == "solution":
        assert 'Our article "When your card arrives" may help. [1]' in response.answer.text
    if name == "triage":
        assert not response.HasField("assessment")
        assert ticket.priority == support_pb2.URGENCY_NORMAL
    if name == "quality":
        assert not response.HasField("verdict")


async def test_without_escalation_the_answer_says_so(stage: Stage) -> None:
    async with stage(escalation=DOWN) as supervisor:
        response = await handle(supervisor, DRAGONS)
    assert response.ticket_id == ""
    assert "help desk could not be reached" in response.answer.text
    assert any("No ticket was opened" in one for one in response.missing)


async def test_with_everything_down_there_is_an_answer_still(stage: Stage) -> None:
    async with stage(**dict.fromkeys(NAMES, DOWN)) as supervisor:
        response = await handle(supervisor)
    assert "help desk could not be reached" in response.answer.text
    assert len(response.missing) == 3


@pytest.mark.parametrize("name", NAMES)
async def test_a_hung_agent_costs_no_more_than_the_deadline(stage: Stage, name: str) -> None:
    async with stage(**{name: behaving(name, hang)}) as supervisor:
        began = time.monotonic()
        text = QUESTION if name != "escalation" else DRAGONS
        response = await handle(supervisor, text, within=1.2)
        took = time.monotonic() - began
    assert took < 1.2
    assert any("did not answer in time" in one for one in response.missing)
    assert len(await stage.tickets()) == (name != "escalation")


async def test_an_agent_that_comes_back_is_asked_again(stage: Stage) -> None:
    times = 0

    async def at_second(request: Any, context: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            raise rpc.Unavailable
        return research_pb2.SearchResponse(passages=[PASSAGE])

    async with stage(research=behaving("research", at_second)) as supervisor:
        response = await handle(supervisor)
    assert (response.answer.text, times) == (ANSWER, 2)


async def test_only_unavailable_is_tried_again(stage: Stage) -> None:
    times = 0

    async def refuse(request: Any, context: Any) -> Any:
        nonlocal times
        times += 1
        raise rpc.ResourceExhausted

    async with stage(research=behaving("research", refuse)) as supervisor:
        response = await handle(supervisor)
    assert times == 1
    assert "support-research failed (RESOURCE_EXHAUSTED)" in response.missing[0]


def verdict(decision: support_pb2.Decision.ValueType, sentence: int = 1) -> Any:
    finding = support_pb2.Finding(check="tone", detail="It is rude.", sentence=sentence)
    return quality_pb2.ReviewResponse(
        verdict=support_pb2.Verdict(decision=decision, findings=[finding])
    )


async def test_a_faulty_answer_is_revised_once(stage: Stage) -> None:
    quality = QualityAgent()
    reviews: list[quality_pb2.ReviewRequest] = []

    async def second_sentence_is_rude(request: Any, context: Any) -> Any:
        reviews.append(request)
        if len(reviews) == 1:
            return verdict(support_pb2.DECISION_REVISE)
        return await quality.Review(request, context)

    async with stage(quality=behaving("quality", second_sentence_is_rude)) as supervisor:
        response = await handle(supervisor)
    assert response.answer.text == "Delivery of a card takes up to 5 working days. [1]"
    assert response.verdict.decision == support_pb2.DECISION_PASS
    assert response.ticket_id == ""
    assert [name for name, _ in route(response)] == [
        *("triage", "research", "solution", "quality", "solution", "quality")
    ]


@pytest.mark.parametrize("decision", [support_pb2.DECISION_REVISE, support_pb2.DECISION_ESCALATE])
async def test_an_answer_that_quality_does_not_let_pass_is_not_sent(
    stage: Stage, decision: support_pb2.Decision.ValueType
) -> None:
    async def never(request: Any, context: Any) -> Any:
        return verdict(decision)

    async with stage(quality=behaving("quality", never)) as supervisor:
        response = await handle(supervisor)
    assert not response.answer.citations
    assert "A person of our help desk will answer you" in response.answer.text
    (ticket,) = await stage.tickets()
    assert "Quality: tone: It is rude." in ticket.reason


async def test_a_models_answer_is_not_sent_unreviewed(stage: Stage) -> None:
    async def written(request: Any, context: Any) -> Any:
        answer = support_pb2.Answer(
            text="Five days. [1]", origin=support_pb2.ORIGIN_MODEL, confidence=0.9
        )
        return solution_pb2.ComposeResponse(answer=answer)

    async with stage(solution=behaving("solution", written), quality=DOWN) as supervisor:
        response = await handle(supervisor)
    assert "Five days" not in response.answer.text
    assert response.ticket_id


async def test_a_conversation_goes_on_and_survives_restarts(stage: Stage) -> None:
    async with stage() as supervisor:
        first = await handle(supervisor)
        conversation_id = first.conversation_id
    async with stage() as supervisor:
        second = await handle(supervisor, DRAGONS, conversation_id)
        assert second.conversation_id == conversation_id
        said = await conversation(supervisor, conversation_id)
    customer, agent = supervisor_pb2.ROLE_CUSTOMER, supervisor_pb2.ROLE_AGENT
    assert [one.role for one in said] == [customer, agent, customer, agent]
    assert [one.text for one in said[::2]] == [QUESTION, DRAGONS]
    assert said[1].answer == first.answer
    assert said[3].ticket_id == second.ticket_id != ""


async def conversation(supervisor: Any, conversation_id: str) -> list[supervisor_pb2.Message]:
    request = supervisor_pb2.GetConversationRequest(conversation_id=conversation_id)
    response = await supervisor.GetConversation(request)
    assert response.conversation.conversation_id == conversation_id
    return list(response.conversation.messages)


async def test_the_conversation_shows_what_a_person_answers(stage: Stage) -> None:
    async with stage() as supervisor:
        asked = await handle(supervisor, DRAGONS)
        desk = EscalationAgent(stage.store)
        await desk.AnswerTicket(
            escalation_pb2.AnswerTicketRequest(
                ticket_id=asked.ticket_id, assignee="ann", answer="There are none."
            ),
            None,  # type: ignore[arg-type]
        )
        said = await conversation(supervisor, asked.conversation_id)
    assert said[-1].role == supervisor_pb2.ROLE_PERSON
    assert (said[-1].text, said[-1].ticket_id) == ("There are none.", asked.ticket_id)


async def test_a_conversation_without_its_tickets_is_not_shown_as_whole(stage: Stage) -> None:
    async with stage(escalation=DOWN) as supervisor:
        handled = await handle(supervisor)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await conversation(supervisor, handled.conversation_id)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_latest_200_messages_are_kept_for_30_days(stage: Stage) -> None:
    async with stage() as supervisor, embedded.redis_client(stage.redis_url) as client:
        for number in range(101):
            await handle(supervisor, f"{QUESTION} {number}", "long")
        said = await conversation(supervisor, "long")
        (key,) = await client.keys("*")
        left = await client.ttl(key)
    assert len(said) == 200
    assert said[0].text == f"{QUESTION} 1"
    assert 29 * 86_400 < left <= 30 * 86_400


async def test_a_very_short_question_is_read_with_the_one_before(stage: Stage) -> None:
    library = Library()
    async with stage(research=behaving("research", library.search)) as supervisor:
        await handle(supervisor, QUESTION, "c")
        response = await handle(supervisor, "And at weekends?", "c")
        await handle(supervisor, "And at weekends?")
    assert library.asked == [
        QUESTION,
        f"{QUESTION}\nAnd at weekends?",
        "And at weekends?",
    ]
    assert "Weekends do not count. [1]" in response.answer.text


async def test_without_redis_the_answer_comes_and_says_what_is_missing(store: Database) -> None:
    async with Stage(store, "redis://127.0.0.1:1/0")() as supervisor:
        response = await handle(supervisor, QUESTION, "c")
        assert response.answer.text.startswith(ANSWER)
        assert PERSON_LOOKS in response.answer.text
        assert any("was not read" in one for one in response.missing)
        assert any("was not saved" in one for one in response.missing)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await conversation(supervisor, "c")
    assert rpc.error_from_call(failed.value).reason == "CONVERSATIONS_UNAVAILABLE"


async def test_unknown_conversation(stage: Stage) -> None:
    async with stage() as supervisor:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await conversation(supervisor, "nobody")
    assert rpc.error_from_call(failed.value).reason == "UNKNOWN_CONVERSATION"


async def test_bad_requests_name_the_field(stage: Stage) -> None:
    handle_request, watch = supervisor_pb2.HandleRequest, supervisor_pb2.WatchRequest
    async with stage() as supervisor:
        for request, fields in (
            (handle_request(), {"text"}),
            (handle_request(text="x" * 8_001), {"text"}),
            (handle_request(text="x", conversation_id="a b"), {"conversation_id"}),
            (handle_request(conversation_id="x" * 65), {"text", "conversation_id"}),
            (watch(), {"request.text"}),
            (
                watch(request=handle_request(text="x", conversation_id="ä")),
                {"request.conversation_id"},
            ),
            (supervisor_pb2.GetConversationRequest(), {"conversation_id"}),
        ):
            name = type(request).__name__.removesuffix("Request")
            call = getattr(supervisor, name)(request)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await (call.read() if name == "Watch" else call)
            error = rpc.error_from_call(failed.value)
            assert isinstance(error, rpc.InvalidArgument), name
            assert {path for path, _ in error.violations} == fields
