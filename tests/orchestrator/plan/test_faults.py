"""What is wrong with a workflow is all said in one answer, each fault with its kind and place."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tests.orchestrator.lab import call, spec, step, way, world

from weft.agents.orchestrator.plan.compile import check_workflow, compile_workflow
from weft.agents.orchestrator.plan.faults import WorkflowInvalid
from weft.v1.workflow_pb2 import FaultKind, SpecFaults

WORLD = world()
OTHER = "lab.v1.Other"
RESULT = "lab.v1.Result"
OPINION = "weft.v1.Opinion{answer: reply.text}"


def word(source: str, id_: str = "c", **more: Any) -> dict[str, Any]:
    """A node that computes a lab.v1.Other with a word."""
    return {"id": id_, "compute": {"type": OTHER, "fields": {"by_path": {"word": source}}}, **more}


def gate(show: str = "input", title: str = "'Ship it?'", **more: Any) -> dict[str, Any]:
    return {"id": "gate", "approval": {"title": title, "show": show, **more}}


def think(name: str, **more: Any) -> dict[str, Any]:
    """A participant whose response is an opinion."""
    by_path = {"text": "question"}
    called = {"method": "lab.v1.LabService/Think", "fields": {"by_path": by_path}}
    return {"name": name, "call": called, **more}


def one(node: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": [node], **more}


def chain(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    ids = [node["id"] for node in nodes]
    ways = [way(a, b) for a, b in itertools.pairwise(ids)]
    return {"nodes": list(nodes), "edges": ways, **more}


def loop(**more: Any) -> dict[str, Any]:
    """a, then b, and back to a."""
    return {
        "nodes": [step("start"), step("a", **more), step("b")],
        "edges": [
            way("start", "a"),
            way("a", "b"),
            way("b", "a", when="b.score < 0.5"),
            way("b", "b2", otherwise=True),
        ],
    }


def looping(bound: int) -> dict[str, Any]:
    made = loop(max_visits=bound)
    made["nodes"].append(step("b2"))
    return made


def pattern(kind: str, **more: Any) -> dict[str, Any]:
    return one({"id": "p", kind: {"question": "input.text", **more}})


def each(**more: Any) -> dict[str, Any]:
    """A for-each node over the items of the input."""
    by_path = {"text": "item.name", "n": "index"}
    called = call(fields={"by_path": by_path})
    made = {"over": "input.items", "calls": [called], **more}
    return one({"id": "each", "for_each": made}, output="each[0]")


MALFORMED, DUPLICATE, RANGE = "MALFORMED", "DUPLICATE", "OUT_OF_RANGE"
NODE, AGENT, METHOD, TYPE = "UNKNOWN_NODE", "UNKNOWN_AGENT", "UNKNOWN_METHOD", "UNKNOWN_TYPE"
WORKFLOW, CAPABILITY = "UNKNOWN_WORKFLOW", "UNKNOWN_CAPABILITY"
SYNTAX, MISMATCH, EARLY = "SYNTAX", "TYPE_MISMATCH", "NOT_YET_RUN"
UNREACHABLE, CYCLE, DEFAULT = "UNREACHABLE", "UNBOUNDED_CYCLE", "NO_DEFAULT"
JOIN, SCOPE, UNSUITABLE, RECURSIVE = (
    "IMPOSSIBLE_JOIN",
    "MISSING_SCOPE",
    "UNSUITABLE_METHOD",
    "RECURSIVE_WORKFLOW",
)

CASES: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "name is empty": ({**one(step("a")), "name": ""}, [(MALFORMED, "name")]),
    "name has capitals": ({**one(step("a")), "name": "Trial"}, [(MALFORMED, "name")]),
    "description is too long": (
        one(step("a", description="x" * 1001), description="y" * 1001),
        [(MALFORMED, "description"), (MALFORMED, "nodes[0].description")],
    ),
    "input type is empty": (
        {**one(step("a", call=call(fields={}))), "input_type": ""},
        [(MALFORMED, "input_type"), (MALFORMED, "input_type")][:1],
    ),
    "input type is unknown": (
        {**one(step("a")), "input_type": "lab.v1.Nothing"},
        [(TYPE, "input_type")],
    ),
    "a run of 400 days": (
        one(step("a"), max_duration="34560000s"),
        [(RANGE, "max_duration")],
    ),
    "no nodes": ({"nodes": []}, [(MALFORMED, "nodes")]),
    "201 nodes": ({"nodes": [step(f"a{n}") for n in range(201)]}, [(RANGE, "nodes")]),
    "1,001 ways": (
        {"nodes": [step("a"), step("b")], "edges": [way("a", "b")] * 1001},
        [(RANGE, "edges")],
    ),
    "id of a node has a hyphen": (one(step("a-b")), [(MALFORMED, "nodes[0].id")]),
    "id of a node is a word of CEL": (one(step("in")), [(MALFORMED, "nodes[0].id")]),
    "id of a node is a name that all expressions have": (
        one(step("ran")),
        [(MALFORMED, "nodes[0].id")],
    ),
    "a node does nothing": (chain(step("a"), {"id": "b"}), [(MALFORMED, "nodes[1]")]),
    "two nodes of one id": (
        {"nodes": [step("a"), step("b"), step("a")], "output": "b"},
        [(DUPLICATE, "nodes[2].id")],
    ),
    "two ways that are one": (
        {"nodes": [step("a"), step("b")], "edges": [way("a", "b"), way("a", "b")]},
        [(DUPLICATE, "edges[1]")],
    ),
    "ways from and to nowhere": (
        {"nodes": [step("a"), step("b")], "edges": [way("a", "c"), way("x", "b")]},
        [(NODE, "edges[0].to"), (NODE, "edges[1].from")],
    ),
    "agent is unknown": (
        one(step("a", call=call(agent="nobody"))),
        [(AGENT, "nodes[0].call.agent")],
    ),
    "agent serves another method": (
        one(step("a", call=call(agent="twin-a"))),
        [(METHOD, "nodes[0].call.method")],
    ),
    "method is unknown": (
        one(step("a", call=call(method="lab.v1.LabService/Fly"))),
        [(METHOD, "nodes[0].call.method")],
    ),
    "method is misspelt": (
        one(step("a", call=call(method="lab.v1.LabService.Work"))),
        [(MALFORMED, "nodes[0].call.method")],
    ),
    "two agents serve the method": (
        one(step("a", call=call(method="lab.v1.TwinService/Work"))),
        [(MALFORMED, "nodes[0].call.agent")],
    ),
    "nobody has the tag": (
        one(step("a", call=call(capability={"tags": ["fast", "cheap"]}))),
        [(CAPABILITY, "nodes[0].call.capability")],
    ),
    "no one instance has all labels": (
        one(
            step(
                "a",
                call=call(
                    method="lab.v1.TwinService/Work",
                    capability={"labels": {"zone": "b", "size": "big"}},
                ),
            )
        ),
        [(CAPABILITY, "nodes[0].call.capability")],
    ),
    "a capability that says nothing": (
        one(step("a", call=call(capability={}))),
        [(MALFORMED, "nodes[0].call.capability")],
    ),
    "a method that streams requests": (
        one(step("a", call=call(method="lab.v1.LabService/Upload"))),
        [(UNSUITABLE, "nodes[0].call.method")],
    ),
    "a method of messages": (
        one(step("a", call=call(method="lab.v1.LabService/Mail"))),
        [(UNSUITABLE, "nodes[0].call.method")],
    ),
    "a scope is missing": (
        one(step("a", call=call(method="lab.v1.LabService/Refund"))),
        [(SCOPE, "nodes[0].call.method")],
    ),
    "a compensation without its scope": (
        one(step("a", compensation=call(method="lab.v1.LabService/Refund"))),
        [(SCOPE, "nodes[0].compensation.method")],
    ),
    "a call without a request": (
        one(step("a", call={"method": "lab.v1.LabService/Work"})),
        [(MALFORMED, "nodes[0].call")],
    ),
    "a request of another type": (
        one(step("a", call={"method": "lab.v1.LabService/Work", "message": "input.customer"})),
        [(MISMATCH, "nodes[0].call.message")],
    ),
    "an output that does not fit the next input": (
        chain(
            step("a"),
            step(
                "b",
                call=call(
                    fields={"by_path": {"n": "a.text", "text": "a.text", "notes": "a.items"}}
                ),
            ),
        ),
        [
            (MISMATCH, 'nodes[1].call.fields.by_path["n"]'),
            (MISMATCH, 'nodes[1].call.fields.by_path["notes"]'),
        ],
    ),
    "fields that are not there": (
        one(
            step(
                "a",
                call=call(fields={"by_path": {"txt": "'a'", "customer.age": "1", "text.x": "'b'"}}),
            )
        ),
        [
            (MISMATCH, 'nodes[0].call.fields.by_path["customer.age"]'),
            (MISMATCH, 'nodes[0].call.fields.by_path["text.x"]'),
            (MISMATCH, 'nodes[0].call.fields.by_path["txt"]'),
        ],
    ),
    "both of a oneof": (
        one(step("a", call=call(fields={"by_path": {"say": "'a'", "number": "1"}}))),
        [(MISMATCH, 'nodes[0].call.fields.by_path["say"]')],
    ),
    "a field as a whole and in parts": (
        one(
            step(
                "a",
                call=call(fields={"by_path": {"customer": "input.customer", "customer.id": "'x'"}}),
            )
        ),
        [(MISMATCH, 'nodes[0].call.fields.by_path["customer.id"]')],
    ),
    "an expression that closes what it stands in": (
        one(step("a", call=call(fields={"by_path": {"text": "'a'), n: (1"}}))),
        [(SYNTAX, 'nodes[0].call.fields.by_path["text"]')],
    ),
    "an expression that cannot be parsed": (
        one(word("input.text +")),
        [(SYNTAX, 'nodes[0].compute.fields.by_path["word"]')],
    ),
    "an empty expression": (
        one({"id": "c", "compute": {"type": OTHER, "message": ""}}),
        [(MALFORMED, "nodes[0].compute.message")],
    ),
    "an expression as long as a book": (
        one(word("'" + "a" * 10_000 + "'")),
        [(MALFORMED, 'nodes[0].compute.fields.by_path["word"]')],
    ),
    "an expression as deep as a well": (
        one(word(" + ".join(["'a'"] * 500))),
        [(SYNTAX, 'nodes[0].compute.fields.by_path["word"]')],
    ),
    "a field that nothing has": (
        chain(step("a"), word("a.scor", "b")),
        [(MISMATCH, 'nodes[1].compute.fields.by_path["word"]')],
    ),
    "a name that nothing has": (
        one(word("nobody.text")),
        [(MISMATCH, 'nodes[0].compute.fields.by_path["word"]')],
    ),
    "item outside of a for-each": (
        one(word("item.name")),
        [(MISMATCH, 'nodes[0].compute.fields.by_path["word"]')],
    ),
    "a computed type that is unknown": (
        one({"id": "c", "compute": {"type": "lab.v1.Nothing", "message": "input"}}),
        [(TYPE, "nodes[0].compute.type")],
    ),
    "a computed value of another type": (
        one({"id": "c", "compute": {"type": OTHER, "message": "input"}}),
        [(MISMATCH, "nodes[0].compute.message")],
    ),
    "a node that runs later": (
        chain(word("b.text", "a"), step("b")),
        [(EARLY, 'nodes[0].compute.fields.by_path["word"]')],
    ),
    "a node on another branch": (
        {
            "nodes": [step("a"), step("b"), word("b.text", "c")],
            "edges": [way("a", "b"), way("a", "c")],
            "output": "a",
        },
        [(EARLY, 'nodes[2].compute.fields.by_path["word"]')],
    ),
    "a condition on what runs after it": (
        {
            "nodes": [step("a"), step("b"), step("c")],
            "edges": [way("a", "b", when="c.n > 1"), way("a", "b", otherwise=True), way("b", "c")],
        },
        [(EARLY, "edges[0].when")],
    ),
    "a condition that is no bool": (
        {
            "nodes": [step("a"), step("b")],
            "edges": [way("a", "b", when="a.n"), way("a", "b", otherwise=True)],
        },
        [(MISMATCH, "edges[0].when")],
    ),
    "a condition on no node, a failure of no node, a decision of no gate": (
        {
            "nodes": [step("a"), step("b")],
            "edges": [
                way("a", "b", when="ran.nobody"),
                way("a", "b", when="failures['nobody'].code == 'x'"),
                way("a", "b", when="decisions.a.edited"),
                way("a", "b", otherwise=True),
            ],
        },
        [
            (MISMATCH, "edges[0].when"),
            (MISMATCH, "edges[1].when"),
            (MISMATCH, "edges[2].when"),
        ],
    ),
    "no way for when no condition holds": (
        {"nodes": [step("a"), step("b")], "edges": [way("a", "b", when="a.n > 1")]},
        [(DEFAULT, "nodes[0]")],
    ),
    "a circle that nothing leads to": (
        {
            "nodes": [step("a"), step("b", max_visits=2), step("c", max_visits=2)],
            "edges": [way("b", "c"), way("c", "b")],
        },
        [(UNREACHABLE, "nodes[1]"), (UNREACHABLE, "nodes[2]")],
    ),
    "nothing to begin with": (
        {"nodes": [step("a", max_visits=3)], "edges": [way("a", "a")]},
        [(UNREACHABLE, "nodes[0]")],
    ),
    "a circle without a bound": (looping(0), [(CYCLE, "nodes[1].max_visits")]),
    "a circle with a bound of one": (looping(1), [(CYCLE, "nodes[1].max_visits")]),
    "two circles, one inside the other, without bounds": (
        {
            "nodes": [step("s"), step("a"), step("b"), step("c"), step("d")],
            "edges": [
                way("s", "a"),
                way("a", "b"),
                way("b", "c"),
                way("c", "b", when="c.n > 2"),
                way("c", "a", when="c.n > 1"),
                way("c", "d", otherwise=True),
            ],
        },
        [(CYCLE, "nodes[1].max_visits"), (CYCLE, "nodes[2].max_visits")],
    ),
    "more visits than are good": (looping(10_001), [(RANGE, "nodes[1].max_visits")]),
    "a join of more ways than there are": (
        chain(step("a"), step("b", join={"first": 2})),
        [(JOIN, "nodes[1].join")],
    ),
    "a join of ways that lead back": (
        {
            "nodes": [step("s"), step("a", max_visits=2, join={"first": 2}), step("b")],
            "edges": [way("s", "a"), way("a", "b"), way("b", "a")],
            "output": "s",
        },
        [(JOIN, "nodes[1].join")],
    ),
    "a join of none": (
        chain(step("a"), step("b", join={"first": 0})),
        [(RANGE, "nodes[1].join.first")],
    ),
    "a quorum where a run begins": (
        one(step("a", join={"quorum": True})),
        [(JOIN, "nodes[0].join")],
    ),
    "bad timeouts, attempts, pauses and codes": (
        one(
            step(
                "a",
                timeout="0s",
                retry={
                    "attempts": 21,
                    "first_pause": "-1s",
                    "max_pause": "31536001s",
                    "codes": ["UNAVAILABLE", "OK", "BROKEN"],
                },
            )
        ),
        [
            (RANGE, "nodes[0].retry.attempts"),
            (MALFORMED, "nodes[0].retry.codes[1]"),
            (MALFORMED, "nodes[0].retry.codes[2]"),
            (RANGE, "nodes[0].retry.first_pause"),
            (RANGE, "nodes[0].retry.max_pause"),
            (RANGE, "nodes[0].timeout"),
        ],
    ),
    "a for-each over no list": (
        each(over="input.text", calls=[call()]),
        [(MISMATCH, "nodes[0].for_each.over")],
    ),
    "a for-each of too much": (
        each(at_once=101, most=10_001, least=10_002),
        [
            (RANGE, "nodes[0].for_each.at_once"),
            (RANGE, "nodes[0].for_each.least"),
            (RANGE, "nodes[0].for_each.most"),
        ],
    ),
    "a for-each without a call, and with two": (
        {
            "nodes": [
                {"id": "a", "for_each": {"over": "input.items"}},
                {"id": "b", "for_each": {"over": "input.items", "calls": [call(), call()]}},
            ],
            "output": "input",
        },
        [(MALFORMED, "nodes[0].for_each.calls"), (MALFORMED, "nodes[1].for_each.calls")],
    ),
    "calls beside each other with different responses": (
        one(
            {
                "id": "a",
                "for_each": {"calls": [call(), call(method="lab.v1.LabService/Read")], "least": 3},
            },
            output="input",
        ),
        [
            (MISMATCH, "nodes[0].for_each.calls[1].method"),
            (RANGE, "nodes[0].for_each.least"),
        ],
    ),
    "a fault inside a for-each": (
        each(calls=[call(fields={"by_path": {"text": "item.n", "n": "item.nam"}})]),
        [
            (MISMATCH, 'nodes[0].for_each.calls[0].fields.by_path["n"]'),
            (MISMATCH, 'nodes[0].for_each.calls[0].fields.by_path["text"]'),
        ],
    ),
    "an approval of nothing to be seen": (
        one(gate(show="input.text", title="input")),
        [(MISMATCH, "nodes[0].approval.show"), (MISMATCH, "nodes[0].approval.title")],
    ),
    "an approval without a title, told to a file": (
        one(gate(title="", webhook_url="file:///etc/passwd", quorum=21, expires="0s")),
        [
            (RANGE, "nodes[0].approval.expires"),
            (RANGE, "nodes[0].approval.quorum"),
            (MALFORMED, "nodes[0].approval.title"),
            (MALFORMED, "nodes[0].approval.webhook_url"),
        ],
    ),
    "waits without name and type": (
        one({"id": "a", "wait": {"name": "", "type": "", "timeout": "0s"}}),
        [
            (MALFORMED, "nodes[0].wait.name"),
            (RANGE, "nodes[0].wait.timeout"),
            (MALFORMED, "nodes[0].wait.type"),
        ],
    ),
    "a wait for an unknown type": (
        one({"id": "a", "wait": {"name": "go", "type": "lab.v1.Nothing"}}),
        [(TYPE, "nodes[0].wait.type")],
    ),
    "timers of nothing, of the past, and of text": (
        {
            "nodes": [
                {"id": "a", "timer": {}},
                {"id": "b", "timer": {"pause": "-5s"}},
                {"id": "c", "timer": {"at": "input.text"}},
            ]
        },
        [
            (MALFORMED, "nodes[0].timer"),
            (RANGE, "nodes[1].timer.pause"),
            (MISMATCH, "nodes[2].timer.at"),
        ],
    ),
    "an unknown workflow, an unknown version, one that is less than nothing": (
        {
            "nodes": [
                {"id": "a", "workflow": {"name": "nobody", "message": "input"}},
                {"id": "b", "workflow": {"name": "child", "version": 3, "message": "input"}},
                {"id": "d", "workflow": {"name": "child", "version": -1, "message": "input"}},
            ]
        },
        [
            (WORKFLOW, "nodes[0].workflow.name"),
            (WORKFLOW, "nodes[1].workflow.version"),
            (RANGE, "nodes[2].workflow.version"),
        ],
    ),
    "a workflow in itself": (
        {
            "nodes": [
                {"id": "a", "workflow": {"name": "trial", "message": "input"}},
                {"id": "b", "workflow": {"name": "uncle", "message": "input"}},
            ]
        },
        [(RECURSIVE, "nodes[0].workflow.name"), (RECURSIVE, "nodes[1].workflow.name")],
    ),
    "what a workflow begins with is of another type": (
        {
            "nodes": [
                {"id": "a", "workflow": {"name": "child", "message": "input.customer"}},
                {"id": "b", "workflow": {"name": "child", "fields": {"by_path": {"n": "'1'"}}}},
                {"id": "d", "workflow": {"name": "child"}},
            ]
        },
        [
            (MISMATCH, "nodes[0].workflow.message"),
            (MISMATCH, 'nodes[1].workflow.fields.by_path["n"]'),
            (MALFORMED, "nodes[2].workflow"),
        ],
    ),
    "ends of different types, and no output": (
        {"nodes": [step("a"), word("'x'")]},
        [(MISMATCH, "output")],
    ),
    "an output that is a list": (
        one({"id": "a", "for_each": {"calls": [call()]}}),
        [(MISMATCH, "output")],
    ),
    "an output that is no message": (one(step("a"), output="a.text"), [(MISMATCH, "output")]),
    "an output of no node": (one(step("a"), output="b"), [(MISMATCH, "output")]),
    "a debate of one, for ever, without its judge": (
        pattern(
            "debate",
            participants=[think("anna")],
            rounds=6,
            least=2,
            rule="DECISION_RULE_JUDGE",
        ),
        [
            (MALFORMED, "nodes[0].debate.judge"),
            (RANGE, "nodes[0].debate.least"),
            (RANGE, "nodes[0].debate.participants"),
            (RANGE, "nodes[0].debate.rounds"),
        ],
    ),
    "two debaters of one name, who say no opinion": (
        pattern(
            "debate",
            participants=[
                think("anna"),
                think("anna"),
                {"name": "b c", "call": call()},
                {"name": "carl", "call": call(), "opinion": "reply"},
            ],
        ),
        [
            (DUPLICATE, "nodes[0].debate.participants[1].name"),
            (MALFORMED, "nodes[0].debate.participants[2].name"),
            (MISMATCH, "nodes[0].debate.participants[2].opinion"),
            (MISMATCH, "nodes[0].debate.participants[3].opinion"),
        ],
    ),
    "a question that is no text, in a debate with a fault deep inside": (
        pattern(
            "debate",
            question="input.n",
            participants=[
                think("anna"),
                think(
                    "ben",
                    call={
                        "method": "lab.v1.LabService/Think",
                        "fields": {"by_path": {"text": "peers[0].nonsense"}},
                    },
                ),
            ],
            judge=think("judge", opinion="weft.v1.Opinion{answer: positions}"),
        ),
        [
            (MISMATCH, "nodes[0].debate.judge.opinion"),
            (MISMATCH, 'nodes[0].debate.participants[1].call.fields.by_path["text"]'),
            (MISMATCH, "nodes[0].debate.question"),
        ],
    ),
    "a panel without anybody": (
        pattern("panel"),
        [
            (RANGE, "nodes[0].panel.experts"),
            (MALFORMED, "nodes[0].panel.synthesizer.call.method"),
            (MALFORMED, "nodes[0].panel.synthesizer.call"),
            (MALFORMED, "nodes[0].panel.synthesizer.name"),
        ],
    ),
    "a verification beyond its limits": (
        pattern(
            "verification",
            author=think("anna"),
            verifier=think("ben", opinion="weft.v1.Opinion{answer: issues[0]}"),
            enough=1.5,
            revisions=-2,
        ),
        [
            (RANGE, "nodes[0].verification.enough"),
            (RANGE, "nodes[0].verification.revisions"),
            (MISMATCH, "nodes[0].verification.verifier.opinion"),
        ],
    ),
    "a supervision without workers": (
        pattern("supervision", supervisor=think("boss"), most=51),
        [(RANGE, "nodes[0].supervision.most"), (RANGE, "nodes[0].supervision.workers")],
    ),
    "a peer review of oneself": (
        pattern("peer_review", participants=[think("anna"), think("ben")], reviews=2),
        [(RANGE, "nodes[0].peer_review.reviews")],
    ),
    "much at once": (
        {
            "name": "-",
            "nodes": [
                step("a", call=call(agent="nobody")),
                word("b.text + 1", "b", max_visits=20_000),
                gate(show="b.nothing"),
                step("d", call={"method": "lab.v1.LabService/Refund", "message": "1 +"}),
                step("d", join={"first": 9}),
            ],
            "edges": [
                way("a", "b", when="a.n > 'x'"),
                way("b", "gate"),
                way("gate", "b"),
                way("gate", "zz"),
            ],
            "output": "(a",
        },
        [
            (MALFORMED, "name"),
            (AGENT, "nodes[0].call.agent"),
            (DEFAULT, "nodes[0]"),
            (MISMATCH, 'nodes[1].compute.fields.by_path["word"]'),
            (RANGE, "nodes[1].max_visits"),
            (MISMATCH, "nodes[2].approval.show"),
            (SYNTAX, "nodes[3].call.message"),
            (SCOPE, "nodes[3].call.method"),
            (DUPLICATE, "nodes[4].id"),
            (MISMATCH, "edges[0].when"),
            (NODE, "edges[3].to"),
            (SYNTAX, "output"),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_workflow_is_refused_with_all_that_is_wrong(name: str) -> None:
    fields, expected = CASES[name]
    with pytest.raises(WorkflowInvalid) as refused:
        compile_workflow(spec(**fields), WORLD, scopes=["refunds"])
    details = refused.value.details[0]
    assert isinstance(details, SpecFaults)
    found = [
        (FaultKind.Name(fault.kind).removeprefix("FAULT_KIND_"), fault.place)
        for fault in details.faults
    ]
    assert sorted(found) == sorted(expected)
    assert all(fault.message for fault in details.faults)


def test_more_faults_than_a_status_holds_are_counted_and_told_by_the_check() -> None:
    nodes = [step(f"a{n}", call=call(agent="nobody")) for n in range(150)]
    with pytest.raises(WorkflowInvalid, match=r"and 149 more") as refused:
        compile_workflow(spec(nodes=nodes), WORLD)
    details = refused.value.details[0]
    assert isinstance(details, SpecFaults)
    assert 20 < len(details.faults) < 150
    assert details.ByteSize() < 5_000
    assert len(check_workflow(spec(nodes=nodes), WORLD)[0]) == 150


def test_there_are_sixty_and_more_and_each_kind_is_among_them() -> None:
    assert len(CASES) >= 60
    kinds = {kind for _, expected in CASES.values() for kind, _ in expected}
    names = {name.removeprefix("FAULT_KIND_") for name in FaultKind.keys()}  # noqa: SIM118  an enum is no dict
    assert kinds == names - {"UNSPECIFIED"}


def test_faults_come_in_the_order_of_their_places() -> None:
    fields, _ = CASES["much at once"]
    faults, output_type = check_workflow(spec(**fields), WORLD, scopes=["refunds"])
    sections = [fault.place.split("[")[0].split(".")[0] for fault in faults]
    assert sections == ["name", *["nodes"] * 8, *["edges"] * 2, "output"]
    numbers = [fault.place for fault in faults if fault.place.startswith("nodes")]
    assert numbers == sorted(numbers, key=lambda place: int(place[6 : place.index("]")]))
    assert output_type == ""
