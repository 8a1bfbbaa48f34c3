"""Pictures: everything is there, and nothing lies on anything else."""

from __future__ import annotations

import itertools
import random
import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from weft.agents.orchestrator.drawing import picture_of, to_mermaid, to_svg
from weft.agents.orchestrator.drawing.layout import Area, Layout, Size, laid_out
from weft.agents.orchestrator.drawing.ranks import ranked
from weft.agents.orchestrator.forms import read_spec
from weft.v1 import orchestrator_pb2 as pb

SVG = "{http://www.w3.org/2000/svg}"
GRAPH = """
name: refund
description: Everything "there" is & <more>.
input_type: a.Order
nodes:
- {id: triage, call: {agent: lab, method: lab.v1.Lab/Work, fields: {}}, description: "what & <why>"}
- {id: lookups, for_each: {over: triage.items, calls: [{method: a.B/Search}]}}
- {id: order, wait: {name: order, type: a.Order, timeout: 2h}}
- {id: pause, timer: {pause: 5m}}
- {id: merge, join: quorum, compute: {type: a.b.Merged, fields: {}}}
- {id: talk, debate: {question: q, participants: [{name: anna}, {name: bob}]}}
- {id: sub, workflow: {name: child, version: 2}}
- {id: decide, approval: {title: t, show: x, quorum: 2}}
- {id: poll, call: {agent: lab, method: a.B/Poll}, max_visits: 5}
edges:
- {from: triage, to: lookups}
- {from: triage, to: order, when: 'triage.text == "<b>" && size(triage.items) > 2'}
- {from: triage, to: pause, otherwise: true}
- {from: lookups, to: merge}
- {from: order, to: merge}
- {from: pause, to: merge}
- {from: merge, to: talk}
- {from: talk, to: triage, when: talk.confidence < 0.5}
- {from: talk, to: sub, when: talk.consensus}
- {from: talk, to: decide, otherwise: true}
- {from: sub, to: poll}
- {from: decide, to: poll}
- {from: talk, to: poll, failed: true}
- {from: poll, to: poll, when: poll.pending}
"""
BEGIN = datetime(2026, 5, 4, 9, tzinfo=UTC)


def a_run() -> pb.Run:
    run = pb.Run(id="r-1", workflow="refund", version=3, state=pb.RUN_STATE_WAITING)
    run.create_time.FromDatetime(BEGIN)

    def step(key: str, state: pb.StepState.ValueType, begin: int, end: int | None) -> None:
        made = run.steps.add(key=key, node=key.split("@", maxsplit=1)[0], state=state)
        made.start_time.FromDatetime(BEGIN + timedelta(milliseconds=begin))
        if end is not None:
            made.end_time.FromDatetime(BEGIN + timedelta(milliseconds=end))

    step("triage@1", pb.STEP_STATE_SUCCEEDED, 0, 12)
    step("triage@2", pb.STEP_STATE_SUCCEEDED, 50, 70)
    step("talk@1", pb.STEP_STATE_FAILED, 100, 1_600)
    step("talk@1/round0/anna", pb.STEP_STATE_SUCCEEDED, 100, 1_200)
    step("talk@1/round0/bob", pb.STEP_STATE_FAILED, 100, 1_600)
    step("decide@1", pb.STEP_STATE_WAITING, 1_600, None)
    run.steps.add(key="sub@1", node="sub", state=pb.STEP_STATE_SKIPPED)
    return run


def overlapping(layout: Layout) -> list[tuple[Area, Area]]:
    shown = [*layout.boxes, *(route.label for route in layout.routes if route.label)]
    return [pair for pair in itertools.combinations(shown, 2) if pair[0].overlaps(pair[1])]


def test_every_node_and_way_is_drawn() -> None:
    spec = read_spec(GRAPH).spec
    root = ET.fromstring(to_svg(picture_of(spec)))
    nodes = [
        group.get("data-node") for group in root.iter(f"{SVG}g") if "data-node" in group.attrib
    ]
    assert nodes == ["", *(node.id for node in spec.nodes), "/"]
    ways = [
        (group.get("data-from"), group.get("data-to"))
        for group in root.iter(f"{SVG}g")
        if "data-from" in group.attrib
    ]
    drawn = [way for way in ways if way[0] != "" and way[1] != "/"]
    assert drawn == [(getattr(edge, "from"), edge.to) for edge in spec.edges]
    assert [way for way in ways if way[0] == ""] == [("", "triage")]
    shown = " ".join("".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    for word in (["a", "Order"][1], "lab.Work", "otherwise", "↺ poll.pending", "2 people"):
        assert word in shown
    back = [path for path in root.iter(f"{SVG}path") if "back" in str(path.get("class"))]
    assert len(back) == 2


def test_it_can_be_read_aloud() -> None:
    root = ET.fromstring(to_svg(picture_of(read_spec(GRAPH).spec, a_run())))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title desc"
    title, told = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert title.text == "refund, version 3"
    assert told is not None
    assert told.text is not None
    assert "talk (debate): failed, 1.5 s, 2 parts." in told.text
    assert "triage (call): succeeded, 20 ms, 2 visits." in told.text
    assert "order (wait): not begun." in told.text
    assert "talk leads to decide (otherwise)." in told.text


def test_states_are_told_in_words_and_both_schemes() -> None:
    svg = to_svg(picture_of(read_spec(GRAPH).spec, a_run()))
    for words in (
        "✓ succeeded, 20 ms, 2 visits",
        "✗ failed, 1.5 s, 2 parts",
        "◷ waiting",
        "○ skipped",
    ):
        assert words in svg
    assert "prefers-color-scheme: dark" in svg
    assert "run r-1: waiting" in svg


def test_a_step_that_has_not_ended_lasts_until_now() -> None:
    spec, now = read_spec(GRAPH).spec, BEGIN + timedelta(hours=1, seconds=2)
    assert "waiting, 1h 0m" in to_svg(picture_of(spec, a_run(), now=now))


def test_mermaid_says_the_same() -> None:
    spec = read_spec(GRAPH).spec
    text = to_mermaid(picture_of(spec, a_run()))
    assert text.startswith('---\ntitle: "refund, version 3"\n---\nflowchart TD\n')
    assert len(re.findall(r"^  n\d+ (?:-->|-\.->)", text, re.MULTILINE)) == len(spec.edges) + 2
    assert len(re.findall(r'^  n\d+\S*"', text, re.MULTILINE)) == len(spec.nodes) + 2
    assert '-.->|"↺ poll.pending"|' in text
    assert "#quot;#lt;b#gt;#quot; #amp;#amp;" in text
    assert "class n6 failed" in text


@pytest.mark.parametrize("seed", range(25))
def test_nothing_lies_on_anything_else(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 30)
    boxes = [Size(chance.uniform(40, 260), chance.uniform(26, 120)) for _ in range(count)]
    links = list(
        dict.fromkeys(
            (chance.randrange(count), chance.randrange(count))
            for _ in range(chance.randint(0, 2 * count))
        )
    )
    labels = [Size(chance.uniform(20, 240), 18) if chance.random() < 0.5 else None for _ in links]
    layout = laid_out(boxes, links, labels)
    assert [Size(area.width, area.height) for area in layout.boxes] == boxes
    assert overlapping(layout) == []
    assert [route.label is not None for route in layout.routes] == [
        each is not None for each in labels
    ]
    for route, (source, target) in zip(layout.routes, links, strict=True):
        # Ways touch the boxes they leave and lead to, and go through no other.
        for (x, y), box in zip((route.points[0], route.points[-1]), (source, target), strict=True):
            area = layout.boxes[box]
            assert area.x - 0.01 <= x <= area.x + area.width + 0.01
            assert area.y - 0.01 <= y <= area.bottom + 0.01
        if not route.loop:
            for (x, top), (same, bottom) in zip(route.points[::2], route.points[1::2], strict=True):
                assert x == pytest.approx(same)
                line = Area(x - 0.1, min(top, bottom), 0.2, abs(bottom - top))
                others = [a for n, a in enumerate(layout.boxes) if n not in {source, target}]
                assert not any(area.overlaps(line) for area in others)
    for area in layout.boxes:
        assert area.x >= 0
        assert area.y >= 0
        assert area.x + area.width <= layout.size.width + 0.01
        assert area.bottom <= layout.size.height + 0.01


def test_ways_lead_down_but_those_that_lead_back() -> None:
    links = [(0, 1), (1, 2), (2, 0), (0, 3), (3, 2), (2, 2)]
    layout = laid_out([Size(50, 30)] * 4, links, [None] * 6)
    up = [r.back for r in layout.routes]
    assert up == [False, False, True, False, False, True]
    for (source, target), route in zip(links, layout.routes, strict=True):
        if not route.back:
            assert layout.boxes[source].bottom < layout.boxes[target].y


def test_crossings_are_undone() -> None:
    # A ladder written so that every way would cross.
    links = [(0, 5), (1, 4), (2, 3)]
    order = ranked(6, links).order
    assert [spot.box for spot in order[0]] == [5 - spot.box for spot in order[2]]
