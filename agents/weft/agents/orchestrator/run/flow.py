"""Which steps begin: ways that were taken, joins that wait, loops that go round.

A node with one way in begins when that is taken. One that waits for all its ways begins when one is taken and each other is
taken, or nothing under way leads to it any more. One that needs so many begins with the last of these, and passes over the
others of the same round. A way that leads back begins its node at once, once more.
"""

from __future__ import annotations

from dataclasses import dataclass

from weft.agents.orchestrator.plan.model import Plan, PlanEdge

History = tuple[int, ...]
"""How often each loop of the workflow (`Graph.heads`) had gone round where a step was begun."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A node that begins."""

    number: int
    visit: int
    history: History


@dataclass(slots=True)
class _Waiting:
    """Ways into a node that were taken, and do not suffice yet."""

    ways: set[int]
    history: History


class Flow:
    """Where the run of a workflow stands in its graph."""

    def __init__(self, plan: Plan) -> None:
        nodes = tuple(plan.nodes.values())
        graph = self._graph = plan.graph
        self._needed = tuple(node.needed for node in nodes)
        self._bounds = tuple(node.max_visits for node in nodes)
        self._forward = tuple(
            frozenset(way.number for way in node.ways_in if not way.back) for node in nodes
        )
        self._numbers = {node.id: node.number for node in nodes}
        self._head_places = {head: at for at, head in enumerate(graph.heads)}
        self.visits = [0] * len(nodes)
        self._rounds = [-1] * len(nodes)
        self._under_way = [0] * len(nodes)
        self._running = 0
        self._waiting: dict[int, _Waiting] = {}
        self._waiting_mask = 0

    @property
    def idle(self) -> bool:
        """Whether no step is under way."""
        return not self._running

    def start(self) -> list[Begun]:
        """What a run begins with."""
        nothing = (0,) * len(self._graph.heads)
        return [self._begin(number, nothing) for number in self._graph.begin]

    def open_to(self, edge: PlanEdge) -> bool:
        """Whether a way may be taken: one that leads back is not when its node's bound is reached."""
        target = self._numbers[edge.target]
        bound = self._bounds[target]
        return not edge.back or bound is None or self.visits[target] < bound

    def ended(self, number: int) -> None:
        """A visit of a node is over. What it leads to has to arrive before the flow is settled."""
        self._under_way[number] -= 1
        if not self._under_way[number]:
            self._running &= ~(1 << number)

    def arrive(self, edge: PlanEdge, history: History) -> Begun | None:
        """A way is taken: what begins by that at once."""
        number = self._numbers[edge.target]
        if self._full(number):
            return None
        if edge.back:
            at = self._head_places[number]
            return self._begin(number, (*history[:at], history[at] + 1, *history[at + 1 :]))
        needed, forward = self._needed[number], self._forward[number]
        if needed is not None and self._round(number, history) <= self._rounds[number]:
            return None  # the join has gone on without it
        if len(forward) == 1:
            return self._begin(number, history)
        waiting = self._waiting.get(number)
        if waiting is None:
            waiting = self._waiting[number] = _Waiting(set(), history)
            self._waiting_mask |= 1 << number
        waiting.ways.add(edge.number)
        waiting.history = tuple(map(max, waiting.history, history))
        if len(waiting.ways) < (len(forward) if needed is None else needed):
            return None
        return self._release(number)

    def settle(self) -> Begun | None:
        """What begins since nothing more can come to it. To be asked until it is nothing."""
        while self._waiting:
            ranked = sorted(self._waiting, key=self._graph.order.__getitem__)
            number = next((each for each in ranked if self._decided(each)), None)
            if number is None:
                if self._running:
                    return None
                number = ranked[0]  # joins that wait for each other
            if self._needed[number] is None and not self._full(number):
                return self._release(number)
            self._forget(number)
        return None

    def _decided(self, number: int) -> bool:
        waiting, needed = self._waiting[number], self._needed[number]
        others = self._waiting_mask & ~(1 << number)
        possible = 0
        for way in self._forward[number] - waiting.ways:
            upstream = self._graph.upstream[way]
            if upstream.under_way & self._running or upstream.waiting & others:
                possible += 1
        if needed is None:
            return not possible
        return len(waiting.ways) + possible < needed

    def _full(self, number: int) -> bool:
        bound = self._bounds[number]
        return bound is not None and self.visits[number] >= bound

    def _round(self, number: int, history: History) -> int:
        return sum(history[at] for at in self._graph.loops[number])

    def _forget(self, number: int) -> History:
        self._waiting_mask &= ~(1 << number)
        return self._waiting.pop(number).history

    def _release(self, number: int) -> Begun:
        return self._begin(number, self._forget(number))

    def _begin(self, number: int, history: History) -> Begun:
        self.visits[number] += 1
        self._rounds[number] = max(self._rounds[number], self._round(number, history))
        self._under_way[number] += 1
        self._running |= 1 << number
        return Begun(number, self.visits[number], history)
