"""The workflow of a round, what callers begin it with and decide, and what has to come of it. The seed decides."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from weft.echo.v1 import echo_pb2
from weft.v1.workflow_pb2 import WorkflowSpec

_ITEMS = ("p", "q", "r", "s")
_MOST_VISITS = 4
# Skills that may have effects wait until all before them is stored; those of the others are promised to have none.
_ONCE = frozenset({"intake", "check", "publish", "notify", "close"})
_SHARE_EDITED = 0.3
_LEAST = 0.05  # seconds a call takes
# An agent that is killed, or has lost its Redis, is away for some seconds.
_RETRY = {"attempts": 20, "first_pause": "0.1s", "max_pause": "2s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run. `edited`: what is approved instead of what is shown; empty: what is shown."""

    id: str
    seconds: float
    edited: str

    @property
    def input(self) -> echo_pb2.SayRequest:
        """What it is begun with."""
        request = echo_pb2.SayRequest(text=f"about {self.id}")
        request.delay.FromMilliseconds(int(self.seconds * 1000))
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What has to come of a run.

    Attributes:
        text: its result.
        effects: the beginning of the idempotency key of each call that it makes, by the call's text.
    """

    text: str
    effects: dict[str, str]


def make(runs: int, chance: random.Random, longest: float) -> Sequence[Plan]:
    """The runs of a round; a call takes `longest` seconds at most."""
    return [
        Plan(
            id=f"run-{number}",
            seconds=chance.uniform(_LEAST, longest),
            edited=f"edited {number}" if chance.random() < _SHARE_EDITED else "",
        )
        for number in range(runs)
    ]


def answer(text: str) -> str:
    """What the agent answers: nobody who has not made the call knows it."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def workflow() -> WorkflowSpec:
    """Twelve steps: fan-out, a step for each of a list, a way round, an approval, two ends that are joined."""
    named = {
        "intake": "input.text",
        "left": "intake.said.text",
        "middle": "intake.said.text",
        "right": "intake.said.text",
        "draft": "merge.text + string(visits.draft)",
        "check": "draft.text + string(visits.check)",
        "publish": "gate.text",
        "notify": "gate.text",
        "close": "publish.said.text + notify.said.text",
    }
    nodes = [_calls(name, text) for name, text in named.items()]
    for node in nodes:
        if node["id"] in {"draft", "check"}:
            node["max_visits"] = _MOST_VISITS
    items = ", ".join(f"'{each}'" for each in _ITEMS)
    each = _calls("each", "item + intake.said.text")
    each["for_each"] = {"over": f"[{items}]", "calls": [each.pop("call")], "at_once": 2}
    merged = " + ".join(
        ["left.text", "middle.text", "right.text"]
        + [f"each[{number}].text" for number in range(len(_ITEMS))]
    )
    merge = {
        "type": "weft.echo.v1.SayResponse",
        "fields": {"by_path": {"text": merged}},
    }
    gate = {"title": "'Publish ' + run.id + '?'", "show": "draft", "editable": True}
    nodes += [each, {"id": "merge", "compute": merge}, {"id": "gate", "approval": gate}]
    edges = [
        *(_way("intake", name) for name in ("left", "middle", "right", "each")),
        *(_way(name, "merge") for name in ("left", "middle", "right", "each")),
        *(_way("merge", "draft"), _way("draft", "check")),
        _way("check", "draft", when=f"check.said.text < '8' && visits.draft < {_MOST_VISITS}"),
        _way("check", "gate", otherwise=True),
        *(_way("gate", "publish"), _way("gate", "notify")),
        *(_way("publish", "close"), _way("notify", "close")),
    ]
    whole = {
        "name": "crashing",
        "input_type": "weft.echo.v1.SayRequest",
        "output": "close.said",
        "nodes": nodes,
        "edges": edges,
    }
    return json_format.ParseDict(whole, WorkflowSpec())


def expected(plan: Plan) -> Expected:
    """The same by hand."""
    effects: dict[str, str] = {}

    def called(node: str, text: str, visit: int = 1) -> str:
        whole = f"{plan.id} {node} {text}"
        effects[whole] = f"{plan.id}/{node}@{visit}"
        return answer(whole)

    intake = called("intake", plan.input.text)
    branches = [called(name, intake) for name in ("left", "middle", "right")]
    merged = "".join(branches + [called("each", each + intake) for each in _ITEMS])
    for visit in range(1, _MOST_VISITS + 1):
        draft = called("draft", f"{merged}{visit}", visit)
        if called("check", f"{draft}{visit}", visit) >= "8":
            break
    approved = plan.edited or draft
    published, notified = called("publish", approved), called("notify", approved)
    return Expected(text=called("close", published + notified), effects=effects)


def _calls(name: str, text: str) -> dict[str, Any]:
    once = name in _ONCE
    within = "say." if once else ""
    fields = {f"{within}text": f"run.id + ' {name} ' + {text}", f"{within}delay": "input.delay"}
    call = {
        "agent": "echo",
        "method": f"weft.echo.v1.EchoService/{'SayOnce' if once else 'Say'}",
        "fields": {"by_path": fields},
    }
    return {"id": name, "call": call, "retry": _RETRY, "timeout": "5s"}


def _way(source: str, target: str, **condition: object) -> dict[str, object]:
    return {"from": source, "to": target, **condition}
