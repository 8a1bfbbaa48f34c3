"""Layers of a graph, and the order within each, with few crossings (Sugiyama, Tagawa, Toda 1981).

Boxes are in even ranks. Every link passes odd ranks, where its label has its place, so that no label lies on anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SWEEPS = 24
_SEARCHED = 20_000  # crossings beyond which neighbours are not exchanged to save one


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a rank: a box, or where a link passes.

    Attributes:
        box: number of the box; -1: it is a link that passes.
        link: number of the link; -1: it is a box.
        rank: its rank.
    """

    box: int
    link: int
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The layered graph.

    Attributes:
        order: spots of each rank, from left to right.
        chains: by link: its spots from above to below, its boxes included; empty: it leads from a box to itself.
        back: links that lead up.
    """

    order: Sequence[Sequence[Spot]]
    chains: Sequence[Sequence[Spot]]
    back: frozenset[int]


def ranked(size: int, links: Sequence[tuple[int, int]]) -> Ranks:
    """Layers a graph of boxes 0 to size - 1."""
    back = leading_back(size, links)
    forward = [
        (number, *((target, source) if number in back else (source, target)))
        for number, (source, target) in enumerate(links)
        if source != target
    ]
    layers = _layers(size, [(source, target) for _, source, target in forward])
    spots = [Spot(box, -1, 2 * layers[box]) for box in range(size)]
    chains: list[list[Spot]] = [[] for _ in links]
    for number, source, target in forward:
        passed = range(2 * layers[source] + 1, 2 * layers[target])
        between = [Spot(-1, number, rank) for rank in passed]
        chains[number] = [spots[source], *between, spots[target]]
    return Ranks(order=_ordered(spots, chains), chains=chains, back=frozenset(back))


def leading_back(size: int, links: Sequence[tuple[int, int]]) -> set[int]:
    """Links to boxes that a depth-first search, from the first box, is still in."""
    out: list[list[tuple[int, int]]] = [[] for _ in range(size)]
    for number, (source, target) in enumerate(links):
        out[source].append((number, target))
    state = [0] * size  # 1: in it, 2: done
    back: set[int] = set()
    for begin in range(size):
        if state[begin]:
            continue
        stack = [(begin, iter(out[begin]))]
        state[begin] = 1
        while stack:
            at, ways = stack[-1]
            for number, target in ways:
                if state[target] == 1:
                    back.add(number)
                elif not state[target]:
                    state[target] = 1
                    stack.append((target, iter(out[target])))
                    break
            else:
                state[at] = 2
                stack.pop()
    return back


def _layers(size: int, links: Sequence[tuple[int, int]]) -> list[int]:
    """Longest paths; boxes that nothing holds up go down to what they lead to."""
    into: list[list[int]] = [[] for _ in range(size)]
    out: list[list[int]] = [[] for _ in range(size)]
    for source, target in links:
        into[target].append(source)
        out[source].append(target)
    waiting = [len(each) for each in into]
    ready = [box for box in range(size) if not waiting[box]]
    layers = [0] * size
    order = []
    while ready:
        box = ready.pop()
        order.append(box)
        for target in out[box]:
            layers[target] = max(layers[target], layers[box] + 1)
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    for box in reversed(order):
        if out[box] and not into[box]:
            layers[box] = min(layers[target] for target in out[box]) - 1
    return layers


def _ordered(spots: Sequence[Spot], chains: Sequence[Sequence[Spot]]) -> list[list[Spot]]:
    above: dict[Spot, list[Spot]] = {}
    below: dict[Spot, list[Spot]] = {}
    seen = dict.fromkeys(spots)
    for chain in chains:
        for upper, lower in itertools.pairwise(chain):
            below.setdefault(upper, []).append(lower)
            above.setdefault(lower, []).append(upper)
            seen |= dict.fromkeys((upper, lower))
    order: list[list[Spot]] = [[] for _ in range(max((spot.rank for spot in seen), default=-1) + 1)]
    placed: set[Spot] = set()
    for spot in [each for each in seen if each not in above]:
        _place(spot, below, order, placed)
    best, fewest = [list(rank) for rank in order], _crossings(order, below)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        ranks = range(1, len(order)) if down else range(len(order) - 2, -1, -1)
        for rank in ranks:
            beside = order[rank - 1] if down else order[rank + 1]
            _by_barycenter(order[rank], beside, above if down else below)
        if fewest < _SEARCHED:
            _exchange(order, above, below)
        found = _crossings(order, below)
        if found < fewest:
            best, fewest = [list(rank) for rank in order], found
    return best


def _place(
    begin: Spot,
    below: Mapping[Spot, Sequence[Spot]],
    order: list[list[Spot]],
    placed: set[Spot],
) -> None:
    stack = [begin]
    while stack:
        spot = stack.pop()
        if spot in placed:
            continue
        placed.add(spot)
        order[spot.rank].append(spot)
        stack += reversed(below.get(spot, ()))


def _by_barycenter(
    rank: list[Spot], beside: Sequence[Spot], neighbours: Mapping[Spot, Sequence[Spot]]
) -> None:
    """Sorts those with neighbours by the mean of their places; the others stay where they are."""
    at = {spot: place for place, spot in enumerate(beside)}
    means = {
        spot: sum(at[each] for each in near) / len(near)
        for spot in rank
        if (near := neighbours.get(spot))
    }
    places = [place for place, spot in enumerate(rank) if spot in means]
    moved = sorted((rank[place] for place in places), key=means.__getitem__)
    for place, spot in zip(places, moved, strict=True):
        rank[place] = spot


def _exchange(
    order: list[list[Spot]],
    above: Mapping[Spot, Sequence[Spot]],
    below: Mapping[Spot, Sequence[Spot]],
) -> None:
    """Exchanges neighbours where that saves crossings."""
    for number, rank in enumerate(order):
        at = {
            spot: place
            for near in (number - 1, number + 1)
            if 0 <= near < len(order)
            for place, spot in enumerate(order[near])
        }
        for place in range(len(rank) - 1):
            one, other = rank[place], rank[place + 1]
            now = then = 0
            for near in (above, below):
                ones = [at[each] for each in near.get(one, ())]
                others = [at[each] for each in near.get(other, ())]
                now += sum(a > b for a in ones for b in others)
                then += sum(a < b for a in ones for b in others)
            if then < now:
                rank[place], rank[place + 1] = other, one


def _crossings(order: Sequence[Sequence[Spot]], below: Mapping[Spot, Sequence[Spot]]) -> int:
    total = 0
    for upper, lower in itertools.pairwise(order):
        at = {spot: place for place, spot in enumerate(lower)}
        ends: list[int] = []
        for spot in upper:
            found = sorted(at[each] for each in below.get(spot, ()))
            total += sum(before > end for end in found for before in ends)
            ends += found
    return total
