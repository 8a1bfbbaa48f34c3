from __future__ import annotations

import asyncio
import re
import stat
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import grpc
import httpx
import pytest

from weft import rpc
from weft.cli import connect
from weft.rpc.signing import Signer
from weft.support.v1 import escalation_pb2, escalation_pb2_grpc
from weft.v1.identity_pb2 import Identity

QUESTION = "I am still waiting on my card. It should have arrived a week ago, what can I do?"
# Nothing in the knowledge base answers it.
UNANSWERABLE = "Xyzzy plugh frobnicate quux?"


pytestmark = pytest.mark.timeout(120)  # the first of them starts the house


def test_agents_are_listed_with_their_replicas(weft):
    agents = {agent["name"]: agent for agent in weft("agents", "--json").json}
    assert {"support-supervisor", "support-triage", "support-escalation", "echo"} <= set(agents)
    assert len(agents["support-triage"]["instances"]) == 2
    table = weft("agents", "list").out
    assert (
        len(re.findall(r"^support-triage +\w+ +SERVING +127\.0\.0\.1:\d+ ", table, re.MULTILINE))
        == 2
    )


def test_resolve_takes_agents_and_services(weft):
    by_agent = weft("resolve", "support-triage", "--json").json
    by_service = weft("resolve", "weft.support.v1.TriageService", "--json").json
    assert len(by_agent["instances"]) == 2
    assert by_agent["instances"] == by_service["instances"]
    assert "support-triage" in weft("resolve", "support-triage").out


def test_resolve_of_nothing_hints(weft):
    told = weft("resolve", "support-triag")
    assert told.code == 1
    assert "Did you mean 'support-triage'?" in told.err


def test_find_by_words_by_type_and_why_not(weft):
    by_words = weft("find", "classify", "--json").json
    assert by_words[0]["agent"] == "support-triage"
    assert len(by_words[0]["instances"]) == 2
    table = weft("find", "--produces", "weft.support.v1.Article").out
    assert re.search(r"^support-research +\d+ ", table, re.MULTILINE)
    assert "GetArticle gives it as article" in table
    why = weft("find", "--agent", "support-triage", "--version", ">9", "--explain")
    assert re.search(
        r"^support-triage +\w+ +no +it is \S+, and >9 is asked for", why.out, re.MULTILINE
    )
    assert "further instances miss" not in why.out
    told = weft("find", "--agent", "support-triag")
    assert told.code == 1
    assert "was ever registered" in told.err
    assert weft("find").code == 2


def test_status_shows_every_part(weft):
    told = weft("status", "--json").json
    assert {part["part"]: part["state"] for part in told["parts"]} == dict.fromkeys(
        ("gateway", "registry", "broker", "postgres", "redis"), "up"
    )
    triage = next(agent for agent in told["agents"] if agent["agent"] == "support-triage")
    assert (triage["in_service"], len(triage["metrics"])) == (2, 2)
    assert "PostgreSQL" in weft("status").out


def test_knowledge_is_served_by_words_and_says_so(weft, tmp_path: Path):
    served = {agent["agent"]: agent for agent in weft("status", "--json").json["agents"]}
    assert served["knowledge"]["labels"] == ["search=lexical"]
    assert re.search(r"^knowledge +1/1 .*search=lexical$", weft("status").out, re.MULTILINE)
    (tmp_path / "leave.md").write_text("# Leave\n\nYou have thirty days of leave a year.")
    assert weft("knowledge", "add", str(tmp_path / "leave.md")).code == 0
    found = weft("knowledge", "search", "days of leave", "--json").json
    assert found["hits"][0]["citation"]["documentId"] == "leave"
    assert found["way"] == "SEARCH_WAY_LEXICAL"


def test_metrics_are_where_status_says(weft):
    agents = weft("status", "--json").json["agents"]
    metrics = next(a["metrics"][0] for a in agents if a["agent"] == "support-quality")
    assert "rpc_server_call_duration_seconds" in httpx.get(f"http://{metrics}/metrics").text


def test_ask_answers_with_sources_route_and_trace(weft):
    told = weft("ask", QUESTION)
    assert told.code == 0, told.err
    assert "[1]" in told.out
    assert re.search(r"✓ support-triage\.Classify +\d", told.out)
    trace = re.search(r"^trace +([0-9a-f]{32})$", told.out, re.MULTILINE)
    assert trace is not None
    shown = weft("trace", trace[1], "--wait")
    assert shown.code == 0, shown.err
    assert "TriageService/Classify" in shown.out
    assert "█" in shown.out
    spans = weft("trace", trace[1], "--json").json
    assert {"gateway", "support-supervisor", "support-triage"} <= {
        span["service"] for span in spans
    }


def test_every_door_of_ask_gives_the_same_answer(weft):
    by_rest = weft("ask", QUESTION, "--json").json
    *steps, last = weft("ask", QUESTION, "--json", "--watch").lines
    weft.monkeypatch.setenv("WEFT_GATEWAY", "http://127.0.0.1:1")
    by_name = weft("ask", QUESTION, "--json").json
    watched = weft("ask", QUESTION, "--watch").out
    assert by_rest["answer"]["citations"]
    assert by_rest["answer"] == last["result"]["answer"] == by_name["answer"]
    assert steps[0]["step"]["outcome"] == "STEP_OUTCOME_STARTED"
    assert "support-research.Search" in watched


def test_a_question_that_is_refused_is_told_with_the_field(weft):
    told = weft("ask", " ")
    assert told.code == 1
    assert "INVALID_ARGUMENT" in told.err
    assert "text" in told.err


def test_a_ticket_goes_from_question_to_answer(weft):
    asked = weft("ask", UNANSWERABLE, "--json").json
    ticket = asked["ticketId"]
    assert ticket in {found["ticketId"] for found in weft("tickets", "--json").json}
    assert ticket in weft.offers("tickets claim T-")
    assert weft("tickets", "claim", ticket, "--as", "ada", "--json").json["assignee"] == "ada"
    refused = weft("tickets", "claim", ticket, "--as", "bob")
    assert refused.code == 1
    assert "FAILED_PRECONDITION" in refused.err
    answered = weft("tickets", "answer", ticket, "Plugh means nothing.", "--as", "ada")
    assert "answered" in answered.out
    assert ticket not in weft("tickets").out
    assert ticket in weft("tickets", "list", "--state", "answered").out
    assert "Plugh means nothing." in weft("tickets", "show", ticket).out
    conversation = httpx.get(
        f"{weft('status', '--json').json['parts'][0]['address']}"
        f"/v1/support/conversations/{asked['conversationId']}"
    ).json()
    assert "Plugh means nothing." in str(conversation)


def test_an_unknown_ticket(weft):
    told = weft("tickets", "show", "T-999999")
    assert told.code == 1
    assert "NOT_FOUND" in told.err


def test_keys_are_created_shown_once_and_revoked(weft, house, tools):
    scope = ("--scope", "support.write", "--tenant", "acme")
    key = weft("keys", "create", "web shop", *scope, "--days", "90", "--json").json
    assert key["tenant"] == "acme"
    assert key["key"].startswith(f"weft_{key['id']}_")
    listed = weft("keys", "list")
    assert re.search(
        rf"^{key['id']} +web shop +acme +support\.write +valid ", listed.out, re.MULTILINE
    )
    assert key["key"] not in listed.out
    assert weft("ask", QUESTION, "--key", key["key"]).code == 0
    assert "is revoked" in weft("keys", "revoke", key["id"]).out
    assert weft("keys", "list", "--json").json[0]["state"] == "revoked"
    url = f"{house.address('gateway')}/v1/support/articles"
    bearer = {"authorization": f"Bearer {key['key']}"}
    tools.wait_for(lambda: httpx.get(url, headers=bearer).status_code == 401)
    refused = weft("ask", QUESTION, "--key", key["key"])
    assert refused.code == 1
    assert "UNAUTHENTICATED" in refused.err
    assert key["key"] not in refused.err


def test_agents_believe_the_gateway_and_who_holds_its_key(weft, house, tools):
    key = house.data / "identity.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for words, given in ((("gateway",), f"{key}"), (("agents", "serve", "support"), "")):
        process = Path("/proc") / str(house.child(*words)) / "environ"
        environment = process.read_text().split("\0")
        assert f"WEFT_IDENTITY_KEY={given}" in environment
    registry = house.address("registry")
    eve = Identity(subject="person:eve", all_scopes=True)

    async def called_by(identity: Identity | None) -> str:
        async with connect.to_agent(registry, "support-escalation", identity) as channel:
            stub = escalation_pb2_grpc.EscalationServiceStub(channel)
            try:
                await stub.ListTickets(escalation_pb2.ListTicketsRequest())
            except grpc.aio.AioRpcError as failed:
                return rpc.error_from_call(failed).reason
            return "OK"

    stranger = Signer.made(house.data.parent / "stranger.pem")
    for identity, said in (
        (None, "OK"),
        (eve, "IDENTITY_NOT_TRUSTED"),
        (stranger.sign(eve), "IDENTITY_NOT_TRUSTED"),
        (Signer.load(key).sign(eve), "OK"),
    ):
        assert asyncio.run(called_by(identity)) == said


def test_a_key_prints_alone_so_that_it_can_be_piped(weft):
    told = weft("keys", "create", "pipe")
    assert re.fullmatch(r"weft_\w+_\S+\n", told.out)
    assert "not shown again" in told.err


def test_keys_refuse_what_cannot_be(weft):
    unknown = weft("keys", "revoke", "aaaaaaaaaaaa")
    assert unknown.code == 1
    assert "NOT_FOUND" in unknown.err
    scope = weft("keys", "create", "x", "--scope", "NO SUCH")
    assert scope.code == 1
    assert "scopes[0]" in scope.err


def test_a_breaker_is_held_and_let_go(weft):
    agent, method = "support-research", "GetArticle"
    assert "is held open" in weft("breakers", "hold", agent, method, "open").out
    rows = [line.split() for line in weft("breakers", "list").out.splitlines()]
    held = next(row for row in rows if row[1].endswith(f"/{method}"))
    assert held[2:6] == ["open", "open", "by", "anonymous"]
    assert "on its own again" in weft("breakers", "hold", agent, method, "auto").out
    shown = {
        one["method"].rpartition("/")[2]: one for one in weft("breakers", "list", "--json").json
    }
    assert shown[method]["hold"] == "auto"
    assert [change["held"] for change in shown[method]["history"]] == [True]
    unknown = weft("breakers", "hold", agent, "Nothing", "open")
    assert unknown.code == 1
    assert "no such method" in unknown.err


def test_an_unknown_trace_says_why(weft):
    told = weft("trace", "0" * 31 + "1")
    assert told.code == 1
    assert "not sampled" in told.err
    assert "trace_id" in weft("trace", "nonsense").err


def test_demo_uses_a_mesh_that_runs(weft):
    told = weft("demo")
    assert told.code == 0, told.err
    assert "Using the mesh at" in told.out
    assert "Sources" in told.out
    assert "→ TriageService/Classify" in told.out


def test_a_new_agent_passes_its_test_and_is_reachable(weft, house, tmp_path: Path, tools):
    told = weft("new", "agent", "card-limits", "--dir", str(tmp_path), "--json").json
    folder = tmp_path / "card-limits"
    assert told["generated"] is True
    assert {"card_limits.proto", "card_limits_pb2.py", "agent.py", "README.md"} <= set(
        told["files"]
    )
    kept = tools.environment(house.data, **house.environment())
    tested = subprocess.run(
        (sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"),
        cwd=folder,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
    assert len((folder / "agent.py").read_text().splitlines()) <= 30
    with (tmp_path / "agent.txt").open("wb") as file:
        serving = subprocess.Popen(
            (*tools.command, "agents", "serve", "agent:CardLimits"),
            cwd=folder,
            env=kept,
            stdout=file,
            stderr=file,
        )
    try:
        url = f"{house.address('gateway')}/v1/card-limits:reply"
        tools.wait_for(lambda: httpx.post(url, json={"text": "hello"}).status_code == 200)
        assert httpx.post(url, json={"text": "hello"}).json() == {"text": "You said: hello"}
        assert weft("call", "card-limits.Reply", '{"text": "x"}').json == {"text": "You said: x"}
    finally:
        serving.terminate()
        assert serving.wait(20) == 0


def test_a_new_agent_does_not_touch_what_is_there(nowhere, tmp_path: Path):
    (tmp_path / "greeter").mkdir()
    told = nowhere("new", "agent", "greeter", "--dir", str(tmp_path))
    assert told.code == 1
    assert "is there already" in told.err
    for name in ("Greeter", "1st", "a--b", "a_b", "x" * 64):
        assert nowhere("new", "agent", name, "--dir", str(tmp_path)).code == 2


def test_traffic_is_split_drilled_and_reset(weft):
    agent = "echo"
    ill = weft("traffic", "split", agent, "canary", "10")
    assert "matches every instance" in ill.err
    told = weft("traffic", "split", agent, "canary", "10", "--labels", "track=canary").out
    assert "10 percent of the calls to canary (labels track=canary)" in told
    told = weft("traffic", "set", agent, "zones=prefer", "retries=0", "outliers.failures=80").out
    assert "zones: prefer" in told
    assert "retries: 0" in told
    assert "from 80 percent of failures" in told
    drill = ("--abort", "20", "--code", "internal", "--header", "x-drill=1", "--for", "10m")
    assert (
        "20 percent of the calls fail with INTERNAL" in weft("traffic", "fault", agent, *drill).out
    )
    found = weft("traffic", "show", agent, "--json").json
    assert found["subsets"] == [{"name": "canary", "selector": "track=canary", "percent": 10}]
    assert found["fault"]["header"] == "x-drill"
    weft("traffic", "fault", agent, "--off")
    weft("traffic", "split", agent, "canary", "--remove")
    assert weft("traffic", "show", agent, "--json").json.keys() == {"zones", "retries", "outliers"}
    weft("traffic", "reset", agent, "--reason", "done")
    assert weft("traffic", "show", agent, "--json").json == {}
    events = weft("agents", "events", agent, "--limit", "1").out
    assert "traffic:" in events
    assert "done" in events


def test_agents_are_paused_set_and_let_go_on(weft):
    told = weft("agents", "pause", "support-quality", "--reason", "wrong marks")
    assert told.code == 0
    assert "support-quality is PAUSED: wrong marks" in told.out
    assert re.search(r"^\w{8} +PAUSED +yes", told.out, re.MULTILINE)
    refused = weft("call", "support-quality.Review", "{}")
    assert refused.code == 1
    assert "wrong marks" in refused.err
    assert re.search(
        r"^\w{8} +SERVING +yes", weft("agents", "resume", "support-quality").out, re.MULTILINE
    )
    told = weft("agents", "set", "support-quality", "concurrency=7", "timeout.Review=2s").out
    assert "set: concurrency=7, timeout.Review=2s" in told
    assert (
        "set:"
        not in weft("agents", "set", "support-quality", "concurrency=", "timeout.Review=").out
    )
    events = weft("agents", "events", "support-quality", "--json").json
    assert [event["action"] for event in events] == ["set", "set", "resume", "pause"]
    assert events[-1]["reason"] == "wrong marks"
    assert events[-1]["identity"]["subject"].startswith("person:")
    try:
        with weft.monkeypatch.context() as elsewhere:
            elsewhere.setenv("TZ", "Asia/Tokyo")
            time.tzset()
            paused = datetime.fromisoformat(events[-1]["createTime"]).astimezone()
            shown = weft("agents", "events").out
    finally:
        time.tzset()
    assert f"{paused:%Y-%m-%d %H:%M:%S}" in shown
    assert "pause" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("pause", "support-qualit"), 1, "AGENT_UNKNOWN|no agent|was ever registered"),
        (("drain", "support-quality", "--instance", "zz"), 1, "no instance whose id begins"),
        (("set", "support-quality", "speed=9"), 2, "There is no 'speed' to set"),
        (("set", "support-quality", "timeout.Review=soon"), 2, "is no duration"),
        (("set", "support-quality", "concurrency=many"), 2, "whole number"),
        (("set", "support-quality", "timeout.Revue=2s"), 1, "is no method of the agent"),
    ],
)
def test_what_operators_get_wrong_is_told(weft, arguments, code, words):
    told = weft("agents", *arguments)
    assert told.code == code
    assert re.search(words, told.err), told.err
