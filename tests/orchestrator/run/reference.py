"""How a workflow runs, written as plainly as can be and slowly: what the interpreter is compared with.

It knows nothing of the interpreter: sets instead of masks, a search at every question instead of tables made before.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

APPROVED, REJECTED, EXPIRED = 1, 2, 3
STOPPED = "stopped"


@dataclass(frozen=True)
class Condition:
    """What the condition of a way asks: of `number` of the node it leaves, of a decision, or whether another node ran."""

    kind: str
    modulus: int = 2
    rest: int = 0
    node: str = ""


@dataclass(frozen=True)
class Path:
    source: str
    target: str
    kind: str
    condition: Condition | None = None


@dataclass
class Step:
    """A node: a call, something computed, a gate, or a call for each of several items."""

    id: str
    kind: str
    join: str = "all"
    first: int = 0
    max_visits: int = 0
    fails: int = 0
    """How many of ten visits, or items, fail."""
    undone: bool = False
    items: int = 0
    at_once: int = 1
    least: int = 0


@dataclass
class Graph:
    steps: list[Step]
    paths: list[Path]
    salt: int = 0

    def __post_init__(self) -> None:
        self.by_id = {step.id: step for step in self.steps}
        self.back = self._back()

    def _back(self) -> set[int]:
        found: set[int] = set()
        inside: list[str] = []
        left: set[str] = set()

        def visit(node: str) -> None:
            inside.append(node)
            for number, path in enumerate(self.paths):
                if path.source != node:
                    continue
                if path.target in inside:
                    found.add(number)
                elif path.target not in left:
                    visit(path.target)
            inside.remove(node)
            left.add(node)

        for step in self.steps:
            if not any(path.target == step.id for path in self.paths):
                visit(step.id)
        return found

    def forward_into(self, node: str) -> list[int]:
        return [
            number
            for number, path in enumerate(self.paths)
            if path.target == node and number not in self.back
        ]

    def reaches(self, start: str, end: str, *, forward: bool) -> bool:
        """Whether one way or more lead from one node to another."""
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            node = ahead.pop()
            for number, path in enumerate(self.paths):
                if path.source != node or (forward and number in self.back):
                    continue
                if path.target == end:
                    return True
                if path.target not in seen:
                    seen.add(path.target)
                    ahead.append(path.target)
        return False

    def loops(self, node: str) -> list[str]:
        """Heads of the loops that a node is in."""
        heads = sorted({self.paths[number].target for number in self.back})

        def before(a: str, b: str) -> bool:
            return a == b or self.reaches(a, b, forward=True)

        own = [
            head
            for head in heads
            if any(
                self.paths[number].target == head
                and before(head, node)
                and before(node, self.paths[number].source)
                for number in self.back
            )
        ]
        if own or not self.reaches(node, node, forward=False):
            return own
        return [
            head
            for head in heads
            if self.reaches(node, head, forward=False) and self.reaches(head, node, forward=False)
        ]

    def rank(self) -> list[str]:
        """Nodes in the order in which a depth-first search leaves them, the last first."""
        order: list[str] = []
        seen: set[str] = set()

        def visit(node: str) -> None:
            seen.add(node)
            for path in self.paths:
                if path.source == node and path.target not in seen:
                    visit(path.target)
            order.append(node)

        for step in self.steps:
            if not any(path.target == step.id for path in self.paths):
                visit(step.id)
        return order[::-1]


def number_of(salt: int, key: str) -> int:
    """What the step of a key answers, 0 to 9."""
    return hashlib.sha256(f"{salt}/{key}".encode()).digest()[0] % 10


def fails(graph: Graph, key: str) -> bool:
    step = graph.by_id[key.partition("@")[0]]
    return number_of(graph.salt + 1, key) < step.fails


def verdict(graph: Graph, key: str) -> int:
    return (APPROVED, APPROVED, REJECTED, EXPIRED)[number_of(graph.salt, key) % 4]


@dataclass
class Visit:
    step: Step
    key: str
    history: Counter[str]
    parts: dict[int, str] = field(default_factory=dict)
    """States of items: "open", "good" or "bad"."""


class Reference:
    """A run of a graph. `open` are keys of what is under way; `ended` how it ended."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.open: set[str] = set()
        self.ended = ""
        self.states: dict[str, str] = {}
        self.visits: Counter[str] = Counter()
        self.succeeded: list[str] = []
        self.undo: list[str] = []
        self.ran: set[str] = set()
        self.waiting: dict[str, tuple[set[int], Counter[str]]] = {}
        self.rounds: dict[str, int] = {}
        self.running: dict[str, Visit] = {}
        self.arriving: list[tuple[int, Counter[str]]] = []
        self.decided: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.newest: dict[str, int] = {}
        starts = [step for step in graph.steps if not any(p.target == step.id for p in graph.paths)]
        made = [self._enter(step, Counter()) for step in starts]
        for visit in made:
            self._begin(visit)
        self._go_on()

    # What happens.

    def end(self, key: str) -> None:
        """What is under way by this key ends, as the graph's salt has it."""
        self.open.discard(key)
        owner, _, part = key.partition("/")
        visit = self.running[owner]
        if part:
            visit.parts[int(part)] = "bad" if fails(self.graph, key) else "good"
            self.states[key] = "FAILED" if fails(self.graph, key) else "SUCCEEDED"
            self._items(visit)
        elif visit.step.kind == "gate":
            self._decide(visit)
        elif fails(self.graph, key):
            self._fail(visit)
        else:
            self._succeed(visit, number_of(self.graph.salt, key))
        self._go_on()

    def _decide(self, visit: Visit) -> None:
        decision = self.decided[visit.step.id] = verdict(self.graph, visit.key)
        if decision == APPROVED:
            self._succeed(visit, 0)
            return
        ways = self._chosen(visit.step)
        if not ways:
            self._fail(visit)
            return
        self._leave(visit, "SUCCEEDED")
        self.arriving += [(way, visit.history) for way in ways]

    # Steps.

    def _enter(self, step: Step, history: Counter[str]) -> Visit:
        self.visits[step.id] += 1
        self.rounds[step.id] = max(self.rounds.get(step.id, -1), self._round(step.id, history))
        visit = Visit(step, f"{step.id}@{self.visits[step.id]}", history)
        self.running[visit.key] = visit
        return visit

    def _begin(self, visit: Visit) -> None:
        if self.ended:
            return
        self.states[visit.key] = "RUNNING"
        match visit.step.kind:
            case "compute":
                self._succeed(visit, self.visits[visit.step.id])
            case "each":
                self._items(visit)
            case _:
                self.open.add(visit.key)

    def _items(self, visit: Visit) -> None:
        step = visit.step
        least = step.least or step.items
        bad = sum(state == "bad" for state in visit.parts.values())
        good = sum(state == "good" for state in visit.parts.values())
        if step.items - bad < least:
            self._fail(visit)
        elif good + bad == step.items:
            self._succeed(visit, good)
        else:
            for number in range(step.items):
                under_way = sum(state == "open" for state in visit.parts.values())
                if number not in visit.parts and under_way < step.at_once:
                    visit.parts[number] = "open"
                    self.open.add(f"{visit.key}/{number}")
                    self.states[f"{visit.key}/{number}"] = "RUNNING"

    def _leave(self, visit: Visit, state: str) -> None:
        del self.running[visit.key]
        self.open.discard(visit.key)
        for number, was in visit.parts.items():
            if was == "open":
                self.open.discard(f"{visit.key}/{number}")
                self.states[f"{visit.key}/{number}"] = "SKIPPED"
        self.states[visit.key] = state

    def _succeed(self, visit: Visit, number: int) -> None:
        step = visit.step
        self._leave(visit, "SUCCEEDED")
        self.ran.add(step.id)
        count = int(visit.key.partition("@")[2])
        if count >= self.newest.get(step.id, 0):
            self.newest[step.id] = count
            self.last[step.id] = number
        if step.undone:
            self.succeeded.append(visit.key)
        always = [
            number
            for number, path in enumerate(self.graph.paths)
            if path.source == step.id and path.kind == "always" and self._free(number)
        ]
        self.arriving += [(way, visit.history) for way in always + self._chosen(step)]

    def _fail(self, visit: Visit) -> None:
        self._leave(visit, "FAILED")
        ways = [
            number
            for number, path in enumerate(self.graph.paths)
            if path.source == visit.step.id and path.kind == "failed" and self._free(number)
        ]
        if ways:
            self.arriving += [(way, visit.history) for way in ways]
        else:
            self._finish(f"failed {visit.key}")

    def _finish(self, how: str) -> None:
        self.ended = how
        for visit in list(self.running.values()):
            self._leave(visit, "SKIPPED")
        self.open.clear()
        self.arriving.clear()
        for step in self.graph.steps:
            if f"{step.id}@1" not in self.states:
                self.states[f"{step.id}@1"] = "SKIPPED"
        if how != "done":
            self.undo = [f"{key}~undo" for key in reversed(self.succeeded)]

    # Ways.

    def _free(self, number: int) -> bool:
        return number not in self.graph.back or not self._full(self.graph.paths[number].target)

    def _full(self, node: str) -> bool:
        if not self.graph.reaches(node, node, forward=False):
            return self.visits[node] >= 1
        bound = self.graph.by_id[node].max_visits
        return bool(bound) and self.visits[node] >= bound

    def _chosen(self, step: Step) -> list[int]:
        others: list[int] = []
        for number, path in enumerate(self.graph.paths):
            if path.source != step.id or not self._free(number):
                continue
            if path.kind == "otherwise":
                others.append(number)
            if path.kind == "when" and path.condition and self._holds(step.id, path.condition):
                return [number]
        return others

    def _holds(self, node: str, condition: Condition) -> bool:
        match condition.kind:
            case "number":
                return self.last.get(node, 0) % condition.modulus == condition.rest
            case "decision":
                return self.decided.get(node, 0) == condition.rest
            case _:
                return condition.node in self.ran

    def _round(self, node: str, history: Counter[str]) -> int:
        return sum(history[head] for head in self.graph.loops(node))

    def _go_on(self) -> None:
        while not self.ended:
            if self.arriving:
                self._arrive(*self.arriving.pop(0))
            elif not self._settle():
                break
        if not self.ended and not self.running:
            self._finish("done")

    def _arrive(self, number: int, history: Counter[str]) -> None:
        target = self.graph.paths[number].target
        step = self.graph.by_id[target]
        if self._full(target):
            return
        if number in self.graph.back:
            self._begin(self._enter(step, history + Counter([target])))
            return
        forward = self.graph.forward_into(target)
        wanted = self._wanted(step, forward)
        if wanted is not None and self._round(target, history) <= self.rounds.get(target, -1):
            return
        taken, known = self.waiting.get(target, (set(), Counter()))
        taken, known = taken | {number}, known | history
        self.waiting[target] = (taken, known)
        if len(taken) >= (len(forward) if wanted is None else wanted):
            del self.waiting[target]
            self._begin(self._enter(step, known))

    @staticmethod
    def _wanted(step: Step, forward: list[int]) -> int | None:
        match step.join:
            case "any":
                return 1
            case "first":
                return step.first
            case "quorum":
                return len(forward) // 2 + 1
            case _:
                return None

    def _settle(self) -> bool:
        """Has one join that waits go on, or give up. False: none does."""
        waiting = [node for node in self.graph.rank() if node in self.waiting]
        settled = [node for node in waiting if self._decided(node)]
        if not settled and waiting and not self.running:
            settled = waiting
        if not settled:
            return False
        node = settled[0]
        step = self.graph.by_id[node]
        _, history = self.waiting.pop(node)
        if self._wanted(step, self.graph.forward_into(node)) is None and not self._full(node):
            self._begin(self._enter(step, history))
        return True

    def _decided(self, node: str) -> bool:
        forward = self.graph.forward_into(node)
        taken = self.waiting[node][0]
        possible = [
            number for number in forward if number not in taken and self._comes(node, number)
        ]
        wanted = self._wanted(self.graph.by_id[node], forward)
        if wanted is None:
            return not possible
        return len(taken) + len(possible) < wanted

    def _comes(self, join: str, number: int) -> bool:
        """Whether something under way, or a join that waits, may still lead to a way into a join."""
        busy = {visit.step.id for visit in self.running.values()}
        seen = {join}
        ahead = [self.graph.paths[number].source]
        while ahead:
            node = ahead.pop()
            if node in seen:
                continue
            seen.add(node)
            # A join that waits for all its ways waits for this one too where it lies behind it.
            blocked = (
                self.graph.by_id[node].join == "all"
                and len(self.graph.forward_into(node)) > 1
                and self.graph.reaches(join, node, forward=True)
            )
            if node in busy or (node in self.waiting and not blocked):
                return True
            for each, path in enumerate(self.graph.paths):
                if path.target == node and (not blocked or each in self.graph.back):
                    ahead.append(path.source)
        return False
