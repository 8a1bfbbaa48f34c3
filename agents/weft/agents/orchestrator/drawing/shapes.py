"""The outlines of boxes: a shape for each kind of step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from weft.agents.orchestrator.drawing.layout import Area

PATTERNS: Final = frozenset({"debate", "panel", "verification", "supervision", "peer_review"})
_PAUSES: Final = frozenset({"wait", "timer"})
_SLANT: Final = 12.0
_POINT: Final = 16.0
_BEHIND: Final = 5.0
_BARS: Final = 8.0


def room_of(kind: str) -> float:
    """How much wider than its text a shape is, both sides together."""
    return {"compute": 2 * _SLANT, "approval": 2 * _POINT, "workflow": 2 * _BARS}.get(kind, 0) + (
        16 if kind in _PAUSES else 0
    )


def outline(kind: str, area: Area, state: str) -> Iterator[str]:
    """The elements of a shape, those behind first."""
    yield from _DRAWN.get(kind, _card)(area, _classes(kind, state))


def _classes(kind: str, state: str) -> str:
    family = ""
    if kind == "approval":
        family = " approval"
    elif kind in PATTERNS:
        family = " pattern"
    elif kind in _PAUSES:
        family = " pause"
    elif kind in {"begin", "end"}:
        family = " edgeof"
    return f"shape{family}{f' {state}' if state else ''}"


def _rect(area: Area, classes: str, radius: float) -> str:
    return (
        f'<rect class="{classes}" x="{area.x:.1f}" y="{area.y:.1f}" width="{area.width:.1f}" '
        f'height="{area.height:.1f}" rx="{radius:.1f}"/>'
    )


def _polygon(points: list[tuple[float, float]], classes: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon class="{classes}" stroke-linejoin="round" points="{path}"/>'


def _card(area: Area, classes: str) -> Iterator[str]:
    yield _rect(area, classes, 7)


def _pill(area: Area, classes: str) -> Iterator[str]:
    yield _rect(area, classes, min(area.height / 2, 22))


def _stack(area: Area, classes: str) -> Iterator[str]:
    """Several cards behind each other; all lie within the area."""
    for place in (2, 1, 0):
        shift = place * _BEHIND
        width, height = area.width - 2 * _BEHIND, area.height - 2 * _BEHIND
        y = area.y + 2 * _BEHIND - shift
        yield _rect(Area(area.x + shift, y, width, height), classes, 7)


def _slanted(area: Area, classes: str) -> Iterator[str]:
    right = area.x + area.width
    yield _polygon(
        [
            (area.x + _SLANT, area.y),
            (right, area.y),
            (right - _SLANT, area.bottom),
            (area.x, area.bottom),
        ],
        classes,
    )


def _hexagon(area: Area, classes: str) -> Iterator[str]:
    right, middle = area.x + area.width, area.y + area.height / 2
    yield _polygon(
        [
            (area.x + _POINT, area.y),
            (right - _POINT, area.y),
            (right, middle),
            (right - _POINT, area.bottom),
            (area.x + _POINT, area.bottom),
            (area.x, middle),
        ],
        classes,
    )


def _barred(area: Area, classes: str) -> Iterator[str]:
    yield _rect(area, classes, 3)
    state = classes.rpartition(" ")[2] if " " in classes else ""
    for x in (area.x + _BARS, area.x + area.width - _BARS):
        yield (
            f'<line class="bar {state}" x1="{x:.1f}" y1="{area.y:.1f}" x2="{x:.1f}" '
            f'y2="{area.bottom:.1f}"/>'
        )


def _double(area: Area, classes: str) -> Iterator[str]:
    yield _rect(area, classes, 9)
    state = classes.removeprefix("shape pattern").strip()
    inner = Area(area.x + 3.5, area.y + 3.5, area.width - 7, area.height - 7)
    yield _rect(inner, f"inner {state}".strip(), 6)


_DRAWN: Final[dict[str, Callable[[Area, str], Iterator[str]]]] = {
    "for_each": _stack,
    "compute": _slanted,
    "approval": _hexagon,
    "wait": _pill,
    "timer": _pill,
    "begin": _pill,
    "end": _pill,
    "workflow": _barred,
    **dict.fromkeys(PATTERNS, _double),
}
