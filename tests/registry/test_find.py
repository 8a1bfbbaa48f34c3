"""DiscoveryService: who can do something, and why another cannot."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
import pytest_asyncio

from weft import rpc
from weft.registry import Pace, Terms, labels
from weft.registry.discovery import types
from weft.registry.versions import Range
from weft.v1 import agent_pb2, discovery_pb2, discovery_pb2_grpc

RESEARCH = "weft.support.v1.ResearchService"


@pytest_asyncio.fixture
async def mesh(run_registry):
    """With leases and probes that outlast a busy moment of this machine: who is taken for gone is not found."""
    terms = Terms(ttl=timedelta(seconds=10), heartbeat_interval=timedelta(seconds=0.2))
    async with run_registry(terms=terms, pace=Pace(interval=timedelta(seconds=2))) as running:
        yield running


@pytest_asyncio.fixture
async def found(mesh):
    async with rpc.Channel(mesh.address) as channel:
        yield discovery_pb2_grpc.DiscoveryServiceStub(channel)


def query(**asked) -> discovery_pb2.FindRequest:
    return discovery_pb2.FindRequest(query=discovery_pb2.AgentQuery(**asked))


def ids(answer) -> dict[str, list[str]]:
    return {match.agent: [i.instance_id for i in match.instances] for match in answer.matches}


async def fails(call) -> rpc.Error:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return rpc.error_from_call(failed.value)


async def until_written(found, text, agent):
    """Words are written behind the registration: asks until they are there."""
    async with asyncio.timeout(10):
        while True:
            answer = await found.Find(query(text=text))
            if agent in ids(answer):
                return answer
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def crowd(mesh, join, world):
    return await join(
        mesh,
        world.instance("old", version="1.1.0", capabilities=["lang:de"], zone="a"),
        world.instance(
            "new",
            version="1.4.2",
            capabilities=["lang:de", "fast"],
            labels={"env": "prod", "gpu": ""},
            zone="b",
        ),
        world.instance("next", version="2.0.0-rc.1", labels={"env": "canary"}, zone="b"),
        world.instance("away", agent="support-research", services=[world.ref(RESEARCH)], zone="a"),
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"agent": "support-triage"}, {"support-triage": ["new", "next", "old"]}),
        ({"service": RESEARCH}, {"support-research": ["away"]}),
        ({"capabilities": ["lang:de"]}, {"support-triage": ["new", "old"]}),
        ({"capabilities": ["lang:de", "fast"]}, {"support-triage": ["new"]}),
        ({"capabilities": ["lang:de"], "version": "^1.2"}, {"support-triage": ["new"]}),
        ({"version": "~1.1"}, {"support-triage": ["old"]}),
        ({"version": ">=2.0.0-rc.0"}, {"support-triage": ["next"]}),
        ({"labels": "env in (prod, canary)"}, {"support-triage": ["new", "next"]}),
        ({"labels": "gpu,env!=canary"}, {"support-triage": ["new"]}),
        ({"zone": "a"}, {"support-research": ["away"], "support-triage": ["old"]}),
        ({"zone": "a", "agent": "support-triage"}, {"support-triage": ["old"]}),
        ({"zone": "nowhere"}, {}),
    ],
)
async def test_an_instance_meets_every_field(found, crowd, asked, expected):
    answer = await found.Find(query(**asked))
    assert ids(answer) == expected
    assert answer.revision > 0


async def test_by_type_of_message(found, crowd):
    answer = await found.Find(query(accepts="weft.support.v1.ClassifyRequest"))
    assert ids(answer) == {"support-triage": ["new", "next", "old"]}
    assert [(skill.path, skill.accepts_at) for skill in answer.matches[0].skills] == [
        ("/weft.support.v1.TriageService/Classify", "")
    ]
    # A type within the answer, told with the place where it stands.
    answer = await found.Find(query(produces="weft.support.v1.Article"))
    places = {skill.path: skill.produces_at for skill in answer.matches[0].skills}
    assert set(ids(answer)) == {"support-research"}
    assert places["/weft.support.v1.ResearchService/GetArticle"] == "article"
    # One skill must do both.
    both = {"accepts": "weft.support.v1.ClassifyRequest", "produces": "weft.support.v1.Article"}
    assert ids(await found.Find(query(**both))) == {}


async def test_who_takes_no_calls_is_not_found(found, crowd):
    await crowd.state(agent_pb2.INSTANCE_STATE_DRAINING, "going home", ["new"])
    assert ids(await found.Find(query(capabilities=["lang:de"]))) == {"support-triage": ["old"]}
    explained = await found.Explain(
        discovery_pb2.ExplainRequest(
            query=discovery_pb2.AgentQuery(capabilities=["lang:de"], version="^1.2")
        )
    )
    assert (explained.considered, explained.found) == (4, 0)
    why = {
        one.instance_id: [(m.field, m.reason) for m in one.misses] for one in explained.explanations
    }
    assert why["new"] == [("state", "it is DRAINING: going home")]
    assert why["old"] == [("version", "it is 1.1.0, and ^1.2 is asked for")]
    assert [field for field, _ in why["next"]] == ["capabilities", "version"]
    # Those that miss by least come first.
    counts = [len(one.misses) for one in explained.explanations]
    assert counts == sorted(counts)


async def test_by_words(found, crowd):
    answer = await until_written(found, "classify", "support-triage")
    assert list(ids(answer)) == ["support-triage"]
    await until_written(found, "article", "support-research")
    # Words of either, the better first; a word that is forbidden; another form of a word.
    answer = await found.Find(query(text="classifying articles"))
    assert set(ids(answer)) == {"support-research", "support-triage"}
    ranks = [match.rank for match in answer.matches]
    assert ranks == sorted(ranks, reverse=True)
    assert set(ids(await found.Find(query(text="classifying articles -triage")))) == {
        "support-research"
    }
    best = await found.Find(query(text="get article"))
    assert best.matches[0].skills[0].path == "/weft.support.v1.ResearchService/GetArticle"
    assert best.matches[0].skills[0].description
    assert ids(await found.Find(query(text="xylophone"))) == {}
    # Narrowed by the rest of the query.
    assert ids(await found.Find(query(text="classify", version="^1.2"))) == {
        "support-triage": ["new"]
    }
    why = await found.Explain(
        discovery_pb2.ExplainRequest(
            query=discovery_pb2.AgentQuery(text="classify"), instance_id="away"
        )
    )
    assert [m.field for m in why.explanations[0].misses] == ["text"]


async def test_words_follow_what_agents_say(found, mesh, join, world):
    await join(mesh, world.instance("one", agent="xylophone-player"))
    answer = await until_written(found, "xylophone", "xylophone-player")
    assert ids(answer) == {"xylophone-player": ["one"]}


async def test_words_are_there_after_a_restart(run_registry, join, world):
    async with run_registry() as first, rpc.Channel(first.address) as channel:
        stub = discovery_pb2_grpc.DiscoveryServiceStub(channel)
        await join(first, world.instance("one"))
        await until_written(stub, "classify", "support-triage")
    async with run_registry() as second, rpc.Channel(second.address) as channel:
        stub = discovery_pb2_grpc.DiscoveryServiceStub(channel)
        assert ids(await stub.Find(query(text="classify"))) == {"support-triage": ["one"]}


@pytest.mark.parametrize(
    ("asked", "reason", "name"),
    [
        ({"agent": "nobody"}, "AGENT_UNKNOWN", "nobody"),
        ({"service": "no.Such"}, "SERVICE_UNKNOWN", "no.Such"),
        ({"capabilities": ["flying"]}, "CAPABILITY_UNKNOWN", "flying"),
        ({"accepts": "no.Such"}, "MESSAGE_TYPE_UNKNOWN", "no.Such"),
        ({"produces": "no.Such"}, "MESSAGE_TYPE_UNKNOWN", "no.Such"),
    ],
)
async def test_what_was_never_registered_is_told(found, crowd, asked, reason, name):
    error = await fails(found.Find(query(**asked)))
    assert isinstance(error, rpc.NotFound)
    assert error.reason == reason
    assert name in error.message
    assert "weft agents" in error.message
    why = await found.Explain(discovery_pb2.ExplainRequest(query=discovery_pb2.AgentQuery(**asked)))
    assert all("was ever registered" in one.misses[0].reason for one in why.explanations)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "query"),
        ({"version": "newest"}, "query.version"),
        ({"version": "1" * 201}, "query.version"),
        ({"labels": "env=prod=dev"}, "query.labels"),
        ({"labels": "env in prod"}, "query.labels"),
        ({"labels": "a=b,,c"}, "query.labels"),
        ({"capabilities": ["x"] * 21}, "query.capabilities"),
        ({"text": "x" * 501}, "query.text"),
        ({"text": "a\0b"}, "query.text"),
        ({"text": "the of -refund"}, "query.text"),
        ({"text": "!&|:*'()"}, "query.text"),
    ],
)
async def test_bad_queries_name_the_field(found, crowd, asked, field):
    error = await fails(found.Find(query(**asked)))
    assert isinstance(error, rpc.InvalidArgument)
    assert [where for where, _ in error.violations] == [field]
    error = await fails(
        found.Explain(discovery_pb2.ExplainRequest(query=discovery_pb2.AgentQuery(**asked)))
    )
    assert isinstance(error, rpc.InvalidArgument)


async def test_pages(found, mesh, join, world):
    names = [f"agent-{number}" for number in range(5)]
    await join(mesh, *(world.instance(name, agent=name, zone="z") for name in names))
    request = query(zone="z")
    request.page_size = 2
    pages = []
    while True:
        answer = await found.Find(request)
        pages.append([match.agent for match in answer.matches])
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert pages == [names[:2], names[2:4], names[4:]]
    other = query(zone="a")
    other.page_token = (await found.Find(query(zone="z"))).next_page_token or "bm90aGluZw=="
    error = await fails(found.Find(other))
    assert [where for where, _ in error.violations] == ["page_token"]


async def test_an_unknown_instance_cannot_be_explained(found, crowd):
    error = await fails(
        found.Explain(
            discovery_pb2.ExplainRequest(
                query=discovery_pb2.AgentQuery(zone="a"), instance_id="ghost"
            )
        )
    )
    assert (error.reason, error.metadata) == ("INSTANCE_UNKNOWN", {"instance": "ghost"})


@pytest.mark.parametrize(
    ("selector", "having", "met"),
    [
        ("env=prod", {"env": "prod"}, True),
        ("env==prod", {"env": "dev"}, False),
        ("env!=prod", {}, True),
        ("env", {"env": ""}, True),
        ("!env", {"env": ""}, False),
        ("env in (a,b), gpu", {"env": "b", "gpu": "1"}, True),
        ("env notin (a, b)", {"env": "b"}, False),
        ("env notin (a)", {}, True),
        ("app.example.com/part=x_1", {"app.example.com/part": "x_1"}, True),
        ("in=notin", {"in": "notin"}, True),
    ],
)
def test_label_selectors(selector, having, met):
    assert all(one.met_by(having) for one in labels.parse(selector)) is met


def test_versions_that_are_pre_releases_must_be_asked_for():
    assert "2.0.0-rc.1" not in Range("^2")
    assert "2.0.0-rc.1" in Range(">=2.0.0-rc.0 <3.0.0")


@pytest.mark.parametrize("version", ["", "1", "1.0.0-0\u0663a", f"{'1' * 5_000}.0.0"])
def test_what_is_no_version_is_in_no_range(version):
    assert version not in Range("*")
    assert version not in Range(">=0.0.0-0")


def test_places_in_messages_that_hold_themselves():
    messages = {
        "Tree": (("left", "Tree"), ("leaf", "Leaf")),
        "Leaf": (("made_of", "Wood"), ("tree", "Tree")),
    }
    assert types.place_of("Tree", "Tree", messages) == ""
    assert types.place_of("Wood", "Tree", messages) == "leaf.made_of"
    assert types.place_of("Stone", "Tree", messages) is None
