"""Pictures as text of Mermaid (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from typing import Final

from weft.agents.orchestrator.drawing.picture import Box, Condition, Link, Picture
from weft.agents.orchestrator.drawing.ranks import ranked
from weft.agents.orchestrator.drawing.shapes import PATTERNS
from weft.agents.orchestrator.drawing.style import MARKS, mermaid_classes
from weft.agents.orchestrator.drawing.svg import standing

MEDIA_TYPE: Final = "text/vnd.mermaid"
_SHAPES: Final = {
    "approval": ("{{", "}}"),
    "compute": ("[/", "/]"),
    "wait": ("([", "])"),
    "timer": ("([", "])"),
    "begin": ("([", "])"),
    "end": ("([", "])"),
    "workflow": ("[[", "]]"),
    **dict.fromkeys(PATTERNS, ("[[", "]]")),
}


def to_mermaid(picture: Picture) -> str:
    """A picture as text of Mermaid."""
    numbers = {box.id: number for number, box in enumerate(picture.boxes)}
    pairs = [(numbers[link.source], numbers[link.target]) for link in picture.links]
    back = ranked(len(numbers), pairs).back
    title = picture.title.replace('"', "'")
    lines = ["---", f'title: "{title}"', "---", "flowchart TD"]
    if picture.caption:
        lines.append(f"  %% {' '.join(picture.caption.split())}")
    lines += [f"  n{number}{_box(box)}" for number, box in enumerate(picture.boxes)]
    for number, (link, (source, target)) in enumerate(zip(picture.links, pairs, strict=True)):
        lines.append(f"  n{source} {_arrow(link, is_back=number in back)} n{target}")
    states = {
        number: box.seen.state
        for number, box in enumerate(picture.boxes)
        if box.seen is not None and box.seen.state
    }
    for state, style in mermaid_classes().items():
        if of := [f"n{number}" for number, each in states.items() if each == state]:
            lines += [f"  classDef {state} {style}", f"  class {','.join(of)} {state}"]
    return "\n".join(lines) + "\n"


def _box(box: Box) -> str:
    begin, end = _SHAPES.get(box.kind, ("(", ")"))
    lines = [f"<b>{_quoted(box.title)}</b>", *map(_quoted, box.lines)]
    if box.seen is not None:
        lines.append(_quoted(f"{MARKS.get(box.seen.state, '·')} {standing(box)}"))
    return f'{begin}"{"<br/>".join(lines)}"{end}'


def _arrow(link: Link, *, is_back: bool) -> str:
    arrow = "-.->" if is_back or link.condition is Condition.FAILED else "-->"
    label = f"↺ {link.label}".strip() if is_back else link.label
    return f'{arrow}|"{_quoted(label)}"|' if label else arrow


def _quoted(text: str) -> str:
    """A text that Mermaid takes for nothing else; its entities have a hash where those of HTML have an ampersand."""
    flat = " ".join(text.split()).replace("#", "#35;")
    for sign, entity in (
        ('"', "#quot;"),
        ("&", "#amp;"),
        ("<", "#lt;"),
        (">", "#gt;"),
        ("`", "#96;"),
    ):
        flat = flat.replace(sign, entity)
    return flat
