"""Pictures as SVG: one file with its style, legible in light and dark, readable aloud."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from weft.agents.orchestrator.drawing import shapes
from weft.agents.orchestrator.drawing.layout import LOOP, Area, Layout, Route, Size, laid_out
from weft.agents.orchestrator.drawing.picture import Box, Condition, Link, Picture
from weft.agents.orchestrator.drawing.style import MARKS, sheet
from weft.agents.orchestrator.drawing.words import width, wrapped

MEDIA_TYPE: Final = "image/svg+xml"
_MARGIN: Final = 24.0
_PADDING: Final = 14.0  # beside the text of a box
_KIND, _TITLE, _LINE = 14.0, 18.0, 15.0  # heights of lines
_LABEL: Final = 13.5
_LABEL_COLUMNS, _LABEL_LINES = 36, 3
_HEADING: Final = 24.0
_ROUND: Final = 0.5
_TIP: Final = 8.0
_NAMES: Final = {"for_each": "for each", "peer_review": "peer review"}
_BACK: Final = "↺ "


def to_svg(picture: Picture) -> str:
    """A picture as SVG."""
    numbers = {box.id: number for number, box in enumerate(picture.boxes)}
    links = [(numbers[link.source], numbers[link.target]) for link in picture.links]
    texts = [_label(link) for link in picture.links]
    layout = laid_out([_size(box) for box in picture.boxes], links, [_plate(t) for t in texts])
    return "\n".join(_document(picture, layout, texts)) + "\n"


def _document(picture: Picture, layout: Layout, texts: Sequence[Sequence[str]]) -> Iterator[str]:
    about = wrapped(picture.about, 90, 2)
    top = _MARGIN + _HEADING + 18 * len(about) + (20 if picture.caption else 0)
    heads = [(picture.title, 17.0), *((line, 12.5) for line in about), (picture.caption, 12.5)]
    head = max(width(text, size, bold=True) for text, size in heads)
    wide = max(layout.size.width, head) + 2 * _MARGIN
    high = layout.size.height + top + _MARGIN
    left = (wide - layout.size.width) / 2
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" '
        f'width="{wide:.0f}" height="{high:.0f}" role="img" aria-labelledby="title desc">'
    )
    yield f'<title id="title">{escape(picture.title)}</title>'
    yield f'<desc id="desc">{escape(_told(picture))}</desc>'
    yield f"<style>\n{sheet()}\n</style>"
    yield f'<rect class="ground" width="{wide:.0f}" height="{high:.0f}" rx="10"/>'
    yield from _heads(picture, about)
    yield f'<g transform="translate({left:.1f} {top:.1f})">'
    for link, route in zip(picture.links, layout.routes, strict=True):
        yield from _way(link, route)
    for box, area in zip(picture.boxes, layout.boxes, strict=True):
        yield from _box(box, area)
    for link, route, text in zip(picture.links, layout.routes, texts, strict=True):
        yield from _words(link, route, text)
    yield "</g>"
    yield "</svg>"


def _heads(picture: Picture, about: Sequence[str]) -> Iterator[str]:
    y = _MARGIN + 14
    yield f'<text class="title heading" x="{_MARGIN}" y="{y}">{escape(picture.title)}</text>'
    for line in about:
        y += 18
        yield f'<text class="caption" x="{_MARGIN}" y="{y}">{escape(line)}</text>'
    if picture.caption:
        y += 20
        mark = MARKS.get(picture.state, "")
        words = escape(f"{mark} {picture.caption}".strip())
        yield f'<text class="caption stand {picture.state}" x="{_MARGIN}" y="{y}">{words}</text>'


def _told(picture: Picture) -> str:
    """The picture for those who hear it."""
    titles = {box.id: box.title for box in picture.boxes}
    told = [picture.about.rstrip("."), picture.caption]
    for box in picture.boxes:
        words = f"{box.title} ({_NAMES.get(box.kind, box.kind)})"
        if box.seen is not None:
            words += f": {standing(box)}"
        told.append(words)
    for link in picture.links:
        words = f"{titles[link.source]} leads to {titles[link.target]}"
        if link.condition is Condition.WHEN:
            words += f" when {link.label}"
        elif link.condition is not Condition.ALWAYS:
            words += f" ({link.label})"
        told.append(words)
    return ". ".join(filter(None, told)) + "."


# Boxes


def _is_small(box: Box) -> bool:
    return box.kind in {"begin", "end"}


def standing(box: Box) -> str:
    """What became of a step, in words; empty where the picture is of no run."""
    seen = box.seen
    if seen is None:
        return ""
    words = seen.state or "not begun"
    if seen.time and seen.state != "skipped":
        words += f", {seen.time}"
    if seen.visits > 1:
        words += f", {seen.visits} visits"
    if seen.parts:
        words += f", {seen.parts} parts"
    return words


def _size(box: Box) -> Size:
    if _is_small(box):
        return Size(width(box.title, 12, bold=True) + 2 * _PADDING, 26)
    stands = f"✓ {standing(box)}" if box.seen is not None else ""
    wide = max(
        width(_NAMES.get(box.kind, box.kind).upper(), 10.5) + 14,
        width(box.title, 14, bold=True),
        *(width(line, 11.5) for line in box.lines),
        width(stands, 11.5, bold=True),
        76,
    )
    high = 2 * 8 + _KIND + _TITLE + _LINE * len(box.lines) + (_LINE + 9 if stands else 0)
    room = 10 if box.kind == "for_each" else 0
    return Size(wide + 2 * _PADDING + shapes.room_of(box.kind) + room, high + room)


def _box(box: Box, area: Area) -> Iterator[str]:
    state = box.seen.state if box.seen is not None else ""
    dim = ' class="dim"' if box.seen is not None and state in {"", "skipped"} else ""
    yield f'<g{dim} data-node="{escape(box.id, _QUOTES)}">'
    hint = "\n".join(
        filter(None, [box.title, box.about, box.seen.failure if box.seen is not None else ""])
    )
    yield f"<title>{escape(hint)}</title>"
    yield from shapes.outline(box.kind, area, state)
    x = area.middle - (5 if box.kind == "for_each" else 0)
    y = area.y + (10 if box.kind == "for_each" else 0)
    if _is_small(box):
        yield _text("line", x, y + 17, box.title)
    else:
        yield _text("kind", x, y + 8 + 10, _NAMES.get(box.kind, box.kind))
        y += 8 + _KIND + 14
        yield _text("title", x, y, box.title)
        for line in box.lines:
            y += _LINE
            yield _text("line", x, y, line)
        if box.seen is not None:
            y += _LINE + 3
            words = f"{MARKS.get(state, '·')} {standing(box)}"
            yield _text(f"stand {state or 'skipped'}", x, y, words)
            yield from _spent(box, x, y + 6)
    yield "</g>"


def _spent(box: Box, x: float, y: float) -> Iterator[str]:
    """When in the run the step was: a piece of a bar that is the run's time."""
    seen = box.seen
    if seen is None or not seen.visits:
        return
    wide = _size(box).width - 2 * _PADDING - shapes.room_of(box.kind) - 10
    begin = x - wide / 2
    piece = max((seen.end - seen.begin) * wide, 3)
    at = min(begin + seen.begin * wide, begin + wide - piece)
    yield f'<rect class="track" x="{begin:.1f}" y="{y:.1f}" width="{wide:.1f}" height="3" rx="1.5"/>'
    yield (
        f'<rect class="spent {seen.state}" x="{at:.1f}" y="{y:.1f}" width="{piece:.1f}" '
        'height="3" rx="1.5"/>'
    )


def _text(classes: str, x: float, y: float, text: str) -> str:
    return f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'


# Ways


def _label(link: Link) -> list[str]:
    return wrapped(link.label, _LABEL_COLUMNS, _LABEL_LINES)


def _is_word(link: Link) -> bool:
    return link.condition is not Condition.WHEN


def _plate(lines: Sequence[str]) -> Size | None:
    if not lines:
        return None
    wide = max(width(line, 11, mono=True) for line in lines)
    return Size(wide + 8 + width(_BACK, 11, mono=True), _LABEL * len(lines) + 4)


def _classes(link: Link, route: Route) -> str:
    failed = " failed" if link.condition is Condition.FAILED else ""
    return f"{' back' if route.back else ''}{failed}"


def _way(link: Link, route: Route) -> Iterator[str]:
    dim = ' class="dim"' if link.dim else ""
    ends = f'data-from="{escape(link.source, _QUOTES)}" data-to="{escape(link.target, _QUOTES)}"'
    yield f"<g{dim} {ends}>"
    classes = _classes(link, route)
    path = _loop(route) if route.loop else _path(route.points)
    yield f'<path class="way{classes}" d="{path}"/>'
    yield _tip(route, "tip failed" if link.condition is Condition.FAILED else "tip")
    yield "</g>"


def _path(points: Sequence[tuple[float, float]]) -> str:
    (x, y), *rest = points
    down = 1 if points[-1][1] > y else -1
    # The line ends where its tip begins.
    last = (points[-1][0], points[-1][1] - down * _TIP * 0.8)
    rest[-1] = last
    found = [f"M{x:.1f} {y:.1f}"]
    straight = True
    for to in rest:
        if straight:
            found.append(f"L{to[0]:.1f} {to[1]:.1f}")
        else:
            bend = (to[1] - y) * _ROUND
            found.append(
                f"C{x:.1f} {y + bend:.1f} {to[0]:.1f} {to[1] - bend:.1f} {to[0]:.1f} {to[1]:.1f}"
            )
        straight = not straight
        x, y = to
    return "".join(found)


def _loop(route: Route) -> str:
    (x, top), (_, bottom) = route.points
    out = x + LOOP
    return (
        f"M{x:.1f} {top:.1f}C{out:.1f} {top - 6:.1f} {out:.1f} {bottom + 6:.1f} "
        f"{x + _TIP * 0.8:.1f} {bottom:.1f}"
    )


def _tip(route: Route, classes: str) -> str:
    x, y = route.points[-1]
    if route.loop:
        points = [(x, y), (x + _TIP, y - _TIP / 2), (x + _TIP, y + _TIP / 2)]
    else:
        up = 1 if route.back else -1
        points = [(x, y), (x - _TIP / 2, y + up * _TIP), (x + _TIP / 2, y + up * _TIP)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polygon class="{classes}" points="{path}"/>'


def _words(link: Link, route: Route, text: Sequence[str]) -> Iterator[str]:
    area = route.label
    if area is None:
        return
    yield "<g>"
    yield f"<title>{escape(link.label)}</title>"
    yield (
        f'<rect class="plate" x="{area.x:.1f}" y="{area.y:.1f}" width="{area.width:.1f}" '
        f'height="{area.height:.1f}" rx="3"/>'
    )
    classes = "label word" if _is_word(link) else "label"
    if link.condition is Condition.FAILED:
        classes += " failed"
    if link.dim:
        classes += " dim"
    y = area.y + 2 + 10
    for number, line in enumerate(text):
        words = f"{_BACK}{line}" if route.back and not number else line
        yield _text(classes, area.middle, y, words)
        y += _LABEL
    yield "</g>"


_QUOTES: Final = {'"': "&quot;"}
