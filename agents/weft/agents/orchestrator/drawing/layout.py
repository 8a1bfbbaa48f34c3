"""Where boxes are and how links run: sizes and ranks become coordinates in pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weft.agents.orchestrator.drawing.ranks import Ranks, Spot, ranked

_BESIDE = 28.0  # between spots of a rank
_PASSING = 16.0  # between links that pass
_GAP = 20.0  # between ranks
_ROUNDS = 80
_STRAIGHT, _HALF, _PLAIN = 8.0, 3.0, 1.0  # how much the pieces of links want to be straight
_NEXT = 3  # spots of a link to the next layer
_JOG = 9.0  # by how much ports move for a link to be straight
_PORT = 26.0  # most between the ends of links at a box
LOOP = 34.0  # width of a link from a box to itself


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height."""

    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Area:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        """Its middle, across."""
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    def overlaps(self, other: Area) -> bool:
        """Whether both have a point in common that is on no edge."""
        beside = self.x + self.width <= other.x or other.x + other.width <= self.x
        return not (beside or self.bottom <= other.y or other.bottom <= self.y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How a link runs, from its source to its target.

    Attributes:
        points: straight from the first to the second, in a curve to the third, straight to the fourth, and so on; of a
            link from a box to itself: where it leaves and where it comes back.
        label: where its label is; None: it has none.
        back: it leads up.
        loop: it leads from a box to itself.
    """

    points: Sequence[tuple[float, float]]
    label: Area | None
    back: bool
    loop: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Everything in its place; the upper left corner of all is (0, 0)."""

    boxes: Sequence[Area]
    routes: Sequence[Route]
    size: Size


def laid_out(
    boxes: Sequence[Size], links: Sequence[tuple[int, int]], labels: Sequence[Size | None]
) -> Layout:
    """Lays out a graph.

    Args:
        boxes: their sizes.
        links: numbers of the boxes they lead from and to.
        labels: sizes of their labels.
    """
    ranks = ranked(len(boxes), links)
    loops = {
        source: LOOP + (label.width if label is not None else 0)
        for (source, target), label in zip(links, labels, strict=True)
        if source == target
    }
    sizes = _sizes(ranks, boxes, labels, loops)
    across = _across(ranks, sizes)
    down = _down(ranks, sizes)
    areas = [Area(0, 0, 0, 0)] * len(boxes)
    for spot in (each for rank in ranks.order for each in rank if each.box >= 0):
        size = boxes[spot.box]
        top, bottom = down[spot.rank]
        areas[spot.box] = Area(
            across[spot] - size.width / 2, (top + bottom - size.height) / 2, size.width, size.height
        )
    routes = _routes(ranks, links, labels, areas, across, down)
    return _moved(areas, routes)


def _sizes(
    ranks: Ranks, boxes: Sequence[Size], labels: Sequence[Size | None], loops: Mapping[int, float]
) -> dict[Spot, Size]:
    sizes: dict[Spot, Size] = {}
    for spot in (each for rank in ranks.order for each in rank):
        if spot.box >= 0:
            room = loops.get(spot.box, 0)
            sizes[spot] = Size(boxes[spot.box].width + 2 * room, boxes[spot.box].height)
        else:
            label = labels[spot.link] if spot.rank == _label_rank(ranks, spot.link) else None
            sizes[spot] = label or Size(2, 0)
    return sizes


def _label_rank(ranks: Ranks, link: int) -> int:
    """Labels are beside the box that the way leaves."""
    chain = ranks.chains[link]
    return chain[-2].rank if link in ranks.back else chain[1].rank


def _across(ranks: Ranks, sizes: Mapping[Spot, Size]) -> dict[Spot, float]:
    """Middles of spots: as near to what they are linked with as their neighbours let them."""
    near: dict[Spot, list[tuple[Spot, float]]] = {}
    for chain in ranks.chains:
        for upper, lower in itertools.pairwise(chain):
            passing = (upper.box < 0) + (lower.box < 0)
            weight = (_PLAIN, _HALF, _STRAIGHT)[passing]
            near.setdefault(upper, []).append((lower, weight))
            near.setdefault(lower, []).append((upper, weight))
    at = {
        spot: place
        for rank in ranks.order
        for spot, place in zip(rank, _offsets(rank, sizes), strict=True)
    }
    for turn in range(_ROUNDS):
        for rank in ranks.order if turn % 2 == 0 else reversed(ranks.order):
            if rank:
                _settle(rank, near, sizes, at)
    for chain in ranks.chains:
        _straighten(chain[1:-1], ranks, sizes, at)
    return at


def _straighten(
    passing: Sequence[Spot], ranks: Ranks, sizes: Mapping[Spot, Size], at: dict[Spot, float]
) -> None:
    """Puts a link that passes several ranks under each other, as far down as its neighbours let it."""
    run: list[Spot] = []
    low, high = -math.inf, math.inf
    for spot in passing:
        left, right = _room(spot, ranks, sizes, at)
        if max(low, left) > min(high, right):
            _align(run, low, high, at)
            run, low, high = [], -math.inf, math.inf
        run.append(spot)
        low, high = max(low, left), min(high, right)
    _align(run, low, high, at)


def _align(run: Sequence[Spot], low: float, high: float, at: dict[Spot, float]) -> None:
    if run:
        middle = sum(at[spot] for spot in run) / len(run)
        at.update(dict.fromkeys(run, min(max(middle, low), high)))


def _room(
    spot: Spot, ranks: Ranks, sizes: Mapping[Spot, Size], at: Mapping[Spot, float]
) -> tuple[float, float]:
    """Where the middle of a spot may be while its neighbours stay."""
    rank = ranks.order[spot.rank]
    place = rank.index(spot)
    low, high = -math.inf, math.inf
    if place:
        low = at[rank[place - 1]] + _offsets(rank[place - 1 : place + 1], sizes)[1]
    if place + 1 < len(rank):
        high = at[rank[place + 1]] - _offsets(rank[place : place + 2], sizes)[1]
    return min(low, at[spot]), max(high, at[spot])


def _offsets(rank: Sequence[Spot], sizes: Mapping[Spot, Size]) -> list[float]:
    """Middles of spots that stand as close as they may."""
    found: list[float] = []
    for number, spot in enumerate(rank):
        if number:
            before = rank[number - 1]
            both_pass = before.box < 0 and spot.box < 0
            gap = _PASSING if both_pass else _BESIDE
            found.append(found[-1] + (sizes[before].width + sizes[spot].width) / 2 + gap)
        else:
            found.append(0.0)
    return found


def _settle(
    rank: Sequence[Spot],
    near: Mapping[Spot, Sequence[tuple[Spot, float]]],
    sizes: Mapping[Spot, Size],
    at: dict[Spot, float],
) -> None:
    """Moves a rank to where it wants to be, with the least squares that its order lets (pool adjacent violators)."""
    offsets = _offsets(rank, sizes)
    pools: list[tuple[float, float, int]] = []  # mean, weight, count
    for spot, offset in zip(rank, offsets, strict=True):
        linked = near.get(spot, ())
        weight = sum(each for _, each in linked)
        wish = sum(at[other] * each for other, each in linked) / weight if linked else at[spot]
        pool = (wish - offset, weight or 0.01, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, heavy, count = pools.pop()
            total = heavy + pool[1]
            pool = ((mean * heavy + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    moved = [mean for mean, _, count in pools for _ in range(count)]
    for spot, mean, offset in zip(rank, moved, offsets, strict=True):
        at[spot] = mean + offset


def _down(ranks: Ranks, sizes: Mapping[Spot, Size]) -> list[tuple[float, float]]:
    """Top and bottom of each rank."""
    found: list[tuple[float, float]] = []
    y = 0.0
    for rank in ranks.order:
        height = max((sizes[spot].height for spot in rank), default=0)
        found.append((y, y + height))
        y += height + _GAP
    return found


def _routes(
    ranks: Ranks,
    links: Sequence[tuple[int, int]],
    labels: Sequence[Size | None],
    areas: Sequence[Area],
    across: Mapping[Spot, float],
    down: Sequence[tuple[float, float]],
) -> list[Route]:
    below = _ports(ranks, areas, across, lower=True)
    above = _ports(ranks, areas, across, lower=False)
    routes: list[Route] = []
    for number, (chain, (source, _), label) in enumerate(
        zip(ranks.chains, links, labels, strict=True)
    ):
        if not chain:
            routes.append(_loop(areas[source], label))
            continue
        upper, lower = areas[chain[0].box], areas[chain[-1].box]
        middle = across[chain[1]]
        if len(chain) == _NEXT and all(
            abs(x - middle) < _JOG for x in (below[number], above[number])
        ):
            below[number] = above[number] = middle  # a straight line, not one that nearly is
        points = [(below[number], upper.bottom), (below[number], down[chain[0].rank][1])]
        for spot in chain[1:-1]:
            points += [(across[spot], down[spot.rank][0]), (across[spot], down[spot.rank][1])]
        points += [(above[number], down[chain[-1].rank][0]), (above[number], lower.y)]
        back = number in ranks.back
        place = None
        if label is not None:
            at = next(s for s in chain if s.rank == _label_rank(ranks, number))
            top, bottom = down[at.rank]
            y = (top + bottom - label.height) / 2
            place = Area(across[at] - label.width / 2, y, label.width, label.height)
        routes.append(Route(points=points[::-1] if back else points, label=place, back=back))
    return routes


def _loop(area: Area, label: Size | None) -> Route:
    x = area.x + area.width
    points = [(x, area.y + area.height * 0.3), (x, area.y + area.height * 0.7)]
    place = None
    if label is not None:
        y = area.y + (area.height - label.height) / 2
        place = Area(x + LOOP, y, label.width, label.height)
    return Route(points=points, label=place, back=True, loop=True)


def _ports(
    ranks: Ranks, areas: Sequence[Area], across: Mapping[Spot, float], *, lower: bool
) -> dict[int, float]:
    """Where links end at the lower or upper edge of their boxes: beside each other, in the order in which they go."""
    ends: dict[int, list[tuple[float, int]]] = {}
    for number, chain in enumerate(ranks.chains):
        if chain:
            box, beside = (chain[0], chain[1]) if lower else (chain[-1], chain[-2])
            ends.setdefault(box.box, []).append((across[beside], number))
    found: dict[int, float] = {}
    for end, links in ends.items():
        links.sort()
        area = areas[end]
        step = min(_PORT, area.width * 0.7 / len(links))
        for place, (_, link) in enumerate(links):
            found[link] = area.middle + (place - (len(links) - 1) / 2) * step
    return found


def _moved(areas: Sequence[Area], routes: Sequence[Route]) -> Layout:
    """All of it, moved so that its corner is (0, 0)."""
    shown = [*areas, *(route.label for route in routes if route.label is not None)]
    xs = [x for route in routes for x, _ in route.points]
    right = [route.points[0][0] + LOOP for route in routes if route.loop]
    left = min([*(area.x for area in shown), *xs], default=0)
    top = min((area.y for area in shown), default=0)
    wide = max([*(area.x + area.width for area in shown), *xs, *right], default=0)
    high = max((area.bottom for area in shown), default=0)

    def moved(area: Area) -> Area:
        return Area(area.x - left, area.y - top, area.width, area.height)

    return Layout(
        boxes=[moved(area) for area in areas],
        routes=[
            Route(
                points=[(x - left, y - top) for x, y in route.points],
                label=moved(route.label) if route.label is not None else None,
                back=route.back,
                loop=route.loop,
            )
            for route in routes
        ],
        size=Size(wide - left, high - top),
    )
