"""Why steps and runs fail, where the interpreter itself finds that out."""

from __future__ import annotations

from weft.agents.orchestrator.plan.model import ExpressionFailed
from weft.v1.workflow_pb2 import StepFailure, Verdict

_LONGEST = 500  # characters of an expression in a failure


def internal(reason: str, message: str) -> StepFailure:
    """Something that must not be."""
    return StepFailure(code="INTERNAL", reason=reason, message=message)


def of_expression(failed: ExpressionFailed) -> StepFailure:
    """An expression cannot be computed."""
    failure = StepFailure(
        code="FAILED_PRECONDITION", reason="EXPRESSION_FAILED", message=str(failed)
    )
    failure.metadata["expression"] = failed.source[:_LONGEST]
    return failure


def of_verdict(verdict: Verdict.ValueType, comment: str) -> StepFailure:
    """People did not approve."""
    rejected = verdict == Verdict.VERDICT_REJECTED
    words = "It was not approved." if rejected else "Nobody decided in time."
    reason = "REJECTED" if rejected else "EXPIRED"
    return StepFailure(code="FAILED_PRECONDITION", reason=reason, message=comment or words)


def of_step(key: str, failure: StepFailure) -> StepFailure:
    """The failure of a run that a step's failure is."""
    made = StepFailure()
    made.CopyFrom(failure)
    made.metadata["step"] = key
    return made


def cancelled() -> StepFailure:
    """Somebody asked for it."""
    return StepFailure(code="CANCELLED", reason="CANCELLED", message="The run was cancelled.")


def no_result() -> StepFailure:
    """A run is over and gave nothing."""
    words = "The run came to none of the nodes that end its workflow."
    return StepFailure(code="FAILED_PRECONDITION", reason="NO_RESULT", message=words)
