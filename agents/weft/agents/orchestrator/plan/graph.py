"""How the ways of a workflow lie: what leads back, what comes before what, and what a join has to wait for.

Nodes and ways are numbers here, in the order of the workflow; sets of nodes are bit masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """A way from a node to another."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Upstream:
    """From where a way can still be come to, without the node that it leads to.

    A join that itself waits for that node is no origin, nor is what lies before it: nothing passes it before.
    """

    under_way: int
    """Nodes from whose end the way can be come to."""
    waiting: int
    """Nodes that, where they wait for ways of their own, may begin and lead to it."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The analysed graph."""

    size: int
    ways: tuple[Way, ...]
    begin: tuple[int, ...]
    """Nodes to which no way leads."""
    back: frozenset[int]
    """Ways that lead back: to a node that a depth-first search from the beginning, in the order of the workflow, is still in."""
    reachable: int
    """Nodes that are come to from the beginning."""
    earlier: tuple[int, ...]
    """By node: those from which it is come to; itself where it lies on a circle."""
    order: tuple[int, ...]
    """Rank of each node when all ways that do not lead back lead forward."""
    heads: tuple[int, ...]
    """Nodes to which ways lead back."""
    loops: tuple[tuple[int, ...], ...]
    """By node: the loops it is in, as places in `heads`."""
    upstream: Mapping[int, Upstream]
    """Of the ways that do not lead back, into nodes with two of them and more."""

    def on_a_circle(self, node: int) -> bool:
        """Whether a node can be come to from itself."""
        return bool(self.earlier[node] >> node & 1)


def analyse(size: int, ways: Sequence[Way], *, waits_for_all: int) -> Graph:
    """Analyses a graph.

    Args:
        size: how many nodes there are.
        ways: the ways between them.
        waits_for_all: nodes whose join needs all ways to be known, as a mask.
    """
    out: list[list[int]] = [[] for _ in range(size)]
    into: list[list[int]] = [[] for _ in range(size)]
    for number, way in enumerate(ways):
        out[way.source].append(number)
        into[way.target].append(number)
    begin = tuple(node for node in range(size) if not into[node])
    back, finished = _search(size, ways, out, begin)
    forward_into = [[w for w in into[node] if w not in back] for node in range(size)]
    forward_before = _before(finished[::-1], ways, forward_into)
    heads = tuple(sorted({ways[number].target for number in back}))
    earlier = _closure(size, ways)
    joins = [node for node in range(size) if len(forward_into[node]) > 1]
    blocking = waits_for_all & _mask(joins)
    upstream: dict[int, Upstream] = {}
    for join in joins:
        blocked = blocking & _after(join, forward_before)
        by_source: dict[int, Upstream] = {}
        for number in forward_into[join]:
            source = ways[number].source
            if source not in by_source:
                by_source[source] = _origins(source, join, ways, into, back, blocked)
            upstream[number] = by_source[source]
    rank = {node: at for at, node in enumerate(finished[::-1])}
    return Graph(
        size=size,
        ways=tuple(ways),
        begin=begin,
        back=frozenset(back),
        reachable=_mask(finished),
        earlier=earlier,
        order=tuple(rank.get(node, size) for node in range(size)),
        heads=heads,
        loops=_loops(size, ways, back, heads, forward_before, earlier),
        upstream=upstream,
    )


def members(mask: int) -> Iterator[int]:
    """The nodes of a mask, in order."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def _mask(nodes: Sequence[int]) -> int:
    mask = 0
    for node in nodes:
        mask |= 1 << node
    return mask


def _search(
    size: int, ways: Sequence[Way], out: Sequence[Sequence[int]], begin: Sequence[int]
) -> tuple[set[int], list[int]]:
    """Depth first: the ways that lead back, and the nodes in the order in which they were left."""
    back: set[int] = set()
    finished: list[int] = []
    inside, left = 1, 2
    state = [0] * size
    for root in begin:
        state[root] = inside
        stack = [(root, iter(out[root]))]
        while stack:
            node, following = stack[-1]
            number = next(following, None)
            if number is None:
                state[node] = left
                finished.append(node)
                stack.pop()
                continue
            target = ways[number].target
            if state[target] == inside:
                back.add(number)
            elif not state[target]:
                state[target] = inside
                stack.append((target, iter(out[target])))
    return back, finished


def _before(
    order: Sequence[int], ways: Sequence[Way], forward_into: Sequence[Sequence[int]]
) -> list[int]:
    """By node: those from which it is come to by ways that do not lead back."""
    before = [0] * len(forward_into)
    for node in order:
        for number in forward_into[node]:
            source = ways[number].source
            before[node] |= before[source] | 1 << source
    return before


def _after(node: int, before: Sequence[int]) -> int:
    return _mask([other for other, mask in enumerate(before) if mask >> node & 1])


def _closure(size: int, ways: Sequence[Way]) -> tuple[int, ...]:
    earlier = [0] * size
    for way in ways:
        earlier[way.target] |= 1 << way.source
    for middle in range(size):  # Warshall, a row at a time
        bit, through = 1 << middle, earlier[middle]
        if through:
            for node in range(size):
                if earlier[node] & bit:
                    earlier[node] |= earlier[middle]
    return tuple(earlier)


def _loops(
    size: int,
    ways: Sequence[Way],
    back: set[int],
    heads: Sequence[int],
    before: Sequence[int],
    earlier: Sequence[int],
) -> tuple[tuple[int, ...], ...]:
    """The loops of each node: those whose body it is in, or where there is no such one, those it shares a circle with."""
    bodies: list[int] = []
    for head in heads:
        body = 1 << head
        for number in back:
            if ways[number].target == head:
                last = ways[number].source
                ending = before[last] | 1 << last
                body |= ending & _after(head, before)
        bodies.append(body)
    found: list[tuple[int, ...]] = []
    for node in range(size):
        own = tuple(at for at, body in enumerate(bodies) if body >> node & 1)
        if not own and earlier[node] >> node & 1:
            own = tuple(
                at
                for at, head in enumerate(heads)
                if earlier[node] >> head & 1 and earlier[head] >> node & 1
            )
        found.append(own)
    return tuple(found)


def _origins(
    source: int,
    join: int,
    ways: Sequence[Way],
    into: Sequence[Sequence[int]],
    back: set[int],
    blocked: int,
) -> Upstream:
    under_way = waiting = 0
    stack = [source]
    seen = {join}
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        under_way |= 1 << node
        stopped = blocked >> node & 1
        if not stopped:
            waiting |= 1 << node
        stack += (ways[w].source for w in into[node] if not stopped or w in back)
    return Upstream(under_way, waiting)
