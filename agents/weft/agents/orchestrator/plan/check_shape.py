"""Whether a workflow is well-formed: what can be said without looking at graph, skills and expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration

from weft.agents.orchestrator.plan.expressions import EVERYWHERE
from weft.agents.orchestrator.plan.faults import Faults
from weft.v1.workflow_pb2 import ApprovalGate, Edge, FaultKind, Node, WorkflowSpec

MOST_NODES: Final = 200
MOST_EDGES: Final = 1_000

_WORKFLOW_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_NODE_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_SIGNAL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_URL: Final = re.compile(r"https?://\S{1,2000}")
_LONGEST_DESCRIPTION: Final = 1_000
_LONGEST_SCOPE: Final = 100
_MOST_ATTEMPTS: Final = 20
_MOST_APPROVERS: Final = 20
_MOST_VISITS: Final = 10_000
_YEAR: Final = timedelta(days=365)
_CODES: Final = frozenset(code.name for code in grpc.StatusCode) - {"OK"}
# https://github.com/google/cel-spec/blob/master/doc/langdef.md: words that are reserved, and names of types.
_CEL_WORDS: Final = frozenset(
    (
        *("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import"),
        *("in", "let", "loop", "namespace", "null", "package", "return", "true", "var", "void"),
        *("while", "bool", "bytes", "double", "dyn", "int", "list", "map", "null_type"),
        *("string", "type", "uint"),
    )
)
_MALFORMED = FaultKind.FAULT_KIND_MALFORMED
_OUT_OF_RANGE = FaultKind.FAULT_KIND_OUT_OF_RANGE
_DUPLICATE = FaultKind.FAULT_KIND_DUPLICATE


def check_shape(spec: WorkflowSpec, faults: Faults) -> bool:
    """Takes down what is not well-formed. False: the workflow is too large to say more of it."""
    if not _WORKFLOW_NAME.fullmatch(spec.name):
        words = "is not 1 to 63 lower-case letters, digits and hyphens, the first a letter"
        faults.add(_MALFORMED, "name", words)
    _description(spec.description, "description", faults)
    if not spec.input_type:
        faults.add(_MALFORMED, "input_type", "is empty")
    if spec.HasField("max_duration"):
        _bounded(spec.max_duration, "max_duration", faults)
    if not spec.nodes:
        faults.add(_MALFORMED, "nodes", "there are none")
    if len(spec.nodes) > MOST_NODES:
        faults.add(_OUT_OF_RANGE, "nodes", f"there are more than {MOST_NODES}")
    if len(spec.edges) > MOST_EDGES:
        faults.add(_OUT_OF_RANGE, "edges", f"there are more than {MOST_EDGES:,}")
    if len(spec.nodes) > MOST_NODES or len(spec.edges) > MOST_EDGES:
        return False
    seen: set[str] = set()
    for number, node in enumerate(spec.nodes):
        _node(node, f"nodes[{number}]", seen, faults)
    _edges(spec, seen, faults)
    return True


def _description(text: str, place: str, faults: Faults) -> None:
    if len(text) > _LONGEST_DESCRIPTION:
        words = f"is longer than {_LONGEST_DESCRIPTION:,} characters"
        faults.add(_MALFORMED, place, words)


def _node(node: Node, place: str, seen: set[str], faults: Faults) -> None:
    if not _NODE_ID.fullmatch(node.id):
        words = "is not 1 to 63 lower-case letters, digits and underscores, the first a letter"
        faults.add(_MALFORMED, f"{place}.id", words)
    elif node.id in _CEL_WORDS or node.id in EVERYWHERE:
        words = f"{node.id!r} means something else in expressions"
        faults.add(_MALFORMED, f"{place}.id", words)
    elif node.id in seen:
        faults.add(_DUPLICATE, f"{place}.id", f"another node is called {node.id!r} already")
    seen.add(node.id)
    _description(node.description, f"{place}.description", faults)
    if node.max_visits > _MOST_VISITS:
        faults.add(_OUT_OF_RANGE, f"{place}.max_visits", f"is more than {_MOST_VISITS:,}")
    if node.join.WhichOneof("kind") == "first" and node.join.first < 1:
        faults.add(_OUT_OF_RANGE, f"{place}.join.first", "is not 1 and more")
    if node.HasField("timeout"):
        _bounded(node.timeout, f"{place}.timeout", faults)
    _retry(node, f"{place}.retry", faults)
    _kind(node, place, faults)


def _kind(node: Node, place: str, faults: Faults) -> None:
    match node.WhichOneof("kind"):
        case None:
            faults.add(_MALFORMED, place, "does not say what the step does")
        case "approval":
            _approval(node.approval, f"{place}.approval", faults)
        case "wait":
            if not _SIGNAL_NAME.fullmatch(node.wait.name):
                words = "is not 1 to 63 letters, digits, dots, hyphens and underscores"
                faults.add(_MALFORMED, f"{place}.wait.name", words)
            if node.wait.HasField("timeout"):
                _bounded(node.wait.timeout, f"{place}.wait.timeout", faults)
        case "timer":
            if node.timer.WhichOneof("until") is None:
                faults.add(_MALFORMED, f"{place}.timer", "says no time")
            if node.timer.WhichOneof("until") == "pause":
                _bounded(node.timer.pause, f"{place}.timer.pause", faults)
        case _:
            pass


def _bounded(given: Duration, place: str, faults: Faults) -> None:
    if not timedelta(0) < given.ToTimedelta() <= _YEAR:
        faults.add(_OUT_OF_RANGE, place, "is not greater than 0 and at most 365 days")


def _retry(node: Node, place: str, faults: Faults) -> None:
    if not node.HasField("retry"):
        return
    retry = node.retry
    if retry.attempts > _MOST_ATTEMPTS:
        faults.add(_OUT_OF_RANGE, f"{place}.attempts", f"is more than {_MOST_ATTEMPTS}")
    if retry.HasField("first_pause"):
        _bounded(retry.first_pause, f"{place}.first_pause", faults)
    if retry.HasField("max_pause"):
        _bounded(retry.max_pause, f"{place}.max_pause", faults)
    for at, code in enumerate(retry.codes):
        if code not in _CODES:
            words = f"{code!r} is no canonical code of an error, such as UNAVAILABLE"
            faults.add(_MALFORMED, f"{place}.codes[{at}]", words)


def _approval(gate: ApprovalGate, place: str, faults: Faults) -> None:
    if gate.quorum > _MOST_APPROVERS:
        faults.add(_OUT_OF_RANGE, f"{place}.quorum", f"is more than {_MOST_APPROVERS}")
    if len(gate.scope) > _LONGEST_SCOPE:
        words = f"is longer than {_LONGEST_SCOPE} characters"
        faults.add(_MALFORMED, f"{place}.scope", words)
    if gate.webhook_url and not _URL.fullmatch(gate.webhook_url):
        words = "is no URL that begins with http:// or https://"
        faults.add(_MALFORMED, f"{place}.webhook_url", words)
    if gate.HasField("expires"):
        _bounded(gate.expires, f"{place}.expires", faults)


def _edges(spec: WorkflowSpec, ids: set[str], faults: Faults) -> None:
    seen: set[tuple[object, ...]] = set()
    for number, edge in enumerate(spec.edges):
        place = f"edges[{number}]"
        for end, name in _ends(edge):
            if name not in ids:
                words = f"there is no node {name!r}"
                faults.add(FaultKind.FAULT_KIND_UNKNOWN_NODE, f"{place}.{end}", words)
        kind = edge.WhichOneof("condition")
        same = (getattr(edge, "from"), edge.to, kind, edge.when)
        if same in seen:
            faults.add(_DUPLICATE, place, "is there already")
        seen.add(same)


def _ends(edge: Edge) -> Iterator[tuple[str, str]]:
    yield "from", getattr(edge, "from")
    yield "to", edge.to
