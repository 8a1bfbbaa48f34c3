"""Random workflows run as the reference says, in whatever order steps end, and however often the run is lost."""

from __future__ import annotations

import random

from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.orchestrator.executor import Fails, Handler, Trial, Verdicts
from tests.orchestrator.run.graphs import compiled, graphs
from tests.orchestrator.run.reference import Graph, Reference, fails, number_of, verdict

from weft.agents.orchestrator.plan.model import Plan
from weft.agents.orchestrator.run.interpreter import Interpreter
from weft.agents.orchestrator.run.turns import OpenCall, OpenStep
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import RunInfo, Verdict

MOST_EVENTS = 400
SLOW = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def handler(graph: Graph, plan: Plan) -> Handler:
    def handle(step: OpenStep) -> Message:
        assert isinstance(step, OpenCall)
        if fails(graph, step.key):
            raise Fails
        made = plan.types.new(step.call.response_type)
        made.n = number_of(graph.salt, step.key)
        return made

    return handle


class _Decides(dict[str, Verdict.ValueType]):
    """Verdicts on any step, as the graph has them."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def get(self, key: str, default: object = None) -> Verdict.ValueType:  # type: ignore[override]
        return Verdict.ValueType(verdict(self._graph, key))


def trial(graph: Graph, *, seed: int, crashes: float = 0.0) -> Trial:
    plan, input_ = compiled(graph)
    return Trial(
        plan,
        input_,
        handler(graph, plan),
        chance=random.Random(seed),
        crashes=crashes,
        verdicts=Verdicts(by_key=_Decides(graph)),
    )


@SLOW
@given(graph=graphs(), seed=st.integers(0, 10_000))
def test_every_step_is_as_the_reference_has_it(graph: Graph, seed: int) -> None:
    run, reference = trial(graph, seed=seed), Reference(graph)
    chance = random.Random(seed)
    turn = run.look()
    for _ in range(MOST_EVENTS):
        assert set(turn.open) == reference.open
        assert (turn.ended is not None) == bool(reference.ended)
        if turn.ended is not None:
            break
        key = chance.choice(sorted(turn.open))
        run.happen(run.outcome(turn.open[key]))
        reference.end(key)
        turn = run.look()
    else:
        return  # a long one, and the same so far
    assert run.states() == reference.states
    assert [each.key for each in turn.undo] == reference.undo
    if turn.ended.output is not None:
        visits = ",".join(str(reference.visits[step.id]) for step in graph.steps)
        assert turn.ended.output.text == visits
        assert reference.ended == "done"
    else:
        assert turn.ended.failure is not None
        assert f"failed {turn.ended.failure.metadata['step']}" == reference.ended


@SLOW
@given(graph=graphs(most=7), seed=st.integers(0, 10_000))
def test_a_run_that_is_lost_again_and_again_goes_the_same_way(graph: Graph, seed: int) -> None:
    calm, lost = trial(graph, seed=seed), trial(graph, seed=seed, crashes=0.0)
    ended = calm.run()
    lost._crashes = 0.5
    lost._chance, moments = random.Random(seed), random.Random(seed + 1)

    def crash() -> None:
        if moments.random() < 0.5:
            lost.crash()

    turn = lost.look()
    while turn.ended is None:
        crash()
        turn = lost.look()
        key = lost._chance.choice(sorted(turn.open))
        # What drew in the calm run: whether it crashes.
        lost.happen(lost.outcome(turn.open[key]))
        lost._chance.random()
        crash()
        turn = lost.look()
    while turn.undo:
        lost.happen(lost.outcome(turn.undo[0]))
        crash()
        turn = lost.look()
    assert turn.ended == ended
    assert lost.done == calm.done, "a step that had ended was carried out again, or others were"
    assert lost.states() == calm.states()


@SLOW
@given(graph=graphs(most=6), seed=st.integers(0, 10_000))
def test_from_any_prefix_of_its_log_a_run_says_what_it_said(graph: Graph, seed: int) -> None:
    run = trial(graph, seed=seed)
    ended = run.run()
    log = [pb.RunEvent.FromString(raw) for raw in run.log]
    whole = [_said(event.step) for event in log if event.HasField("step")]
    for length in range(len(log) + 1):
        again = Interpreter(run.plan, RunInfo(id="run-1"), run._given)
        for event in log[:length]:
            again.apply(event)
        turn = again.turn()
        said = [_said(event.step) for event in log[:length] if event.HasField("step")]
        said += [_said(step) for step in turn.told]
        assert said == whole[: len(said)]
        if length == len(log):
            assert turn.ended is not None
            assert turn.ended.output == ended.output
            assert not turn.told
            assert not turn.undo


def _said(step: pb.Step) -> tuple[str, int]:
    return step.key, step.state
