"""What goes wrong with models, as errors of the mesh.

rpc.Unavailable                          rpc.FailedPrecondition
    |-- ModelUnavailable                     |-- ModelRefused
    |-- ModelOverloaded                      |-- ModelRejected
    |-- ModelStalled                         |-- ModelCredentials
    |-- StreamBroken                         `-- ModelUnknown
    `-- CircuitOpen                      rpc.Internal
rpc.ResourceExhausted                        |-- AnswerMalformed
    |-- ModelRateLimited                     `-- NotFilled
    `-- BudgetSpent                      rpc.OutOfRange
rpc.DeadlineExceeded                         |-- AnswerCutOff
    `-- ModelTooSlow                         `-- TooManySteps

Metadata name the model and the endpoint. What an endpoint wrote of an error is logged, not told: it may quote the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.rpc import error_details_pb2

from weft import rpc


class Failure(rpc.Error):
    """The call of a model failed.

    Attributes:
        again: the same model may do better in a moment.
        elsewhere: another model may.
        trouble: it says that the endpoint or the model is in trouble: a circuit breaker counts it.
    """

    again: bool = False
    elsewhere: bool = False
    trouble: bool = False


class ModelUnavailable(Failure, rpc.Unavailable):
    """The model's endpoint cannot be reached, or failed."""

    reason = "MODEL_UNAVAILABLE"
    again = elsewhere = trouble = True


class ModelOverloaded(Failure, rpc.Unavailable):
    """The model is overloaded."""

    reason = "MODEL_OVERLOADED"
    again = elsewhere = trouble = True


class ModelRateLimited(Failure, rpc.ResourceExhausted):
    """The model's endpoint takes no more requests for now."""

    reason = "MODEL_RATE_LIMITED"
    again = elsewhere = True


class ModelStalled(Failure, rpc.Unavailable):
    """The model said nothing for too long."""

    reason = "MODEL_STALLED"
    again = elsewhere = trouble = True


class StreamBroken(Failure, rpc.Unavailable):
    """The model's answer broke off."""

    reason = "MODEL_STREAM_BROKEN"
    again = elsewhere = trouble = True


class CircuitOpen(Failure, rpc.Unavailable):
    """The model failed too often of late; it is not asked for a while."""

    reason = "MODEL_CIRCUIT_OPEN"
    elsewhere = True


class ModelTooSlow(Failure, rpc.DeadlineExceeded):
    """The deadline passed before the model had answered."""

    reason = "MODEL_TOO_SLOW"


class ModelRefused(Failure, rpc.FailedPrecondition):
    """The model refused to answer."""

    reason = "MODEL_REFUSED"


class ModelRejected(Failure, rpc.FailedPrecondition):
    """The model's endpoint does not take the request."""

    reason = "MODEL_REJECTED"


class ModelCredentials(Failure, rpc.FailedPrecondition):
    """The model's endpoint does not take the credentials it was given."""

    reason = "MODEL_CREDENTIALS"
    elsewhere = True


class ModelUnknown(rpc.FailedPrecondition):
    """No model is set up under this name."""

    reason = "MODEL_UNKNOWN"


class AnswerMalformed(Failure, rpc.Internal):
    """The model's endpoint answered with something that is no answer."""

    reason = "MODEL_ANSWER_MALFORMED"
    again = elsewhere = trouble = True


class AnswerCutOff(Failure, rpc.OutOfRange):
    """The answer is longer than the tokens that were allowed for it.

    Attributes:
        text: what there is of it.
    """

    reason = "MODEL_ANSWER_CUT_OFF"
    text = ""


class NotFilled(Failure, rpc.Internal):
    """The model gave no valid message, not when it was told the faults either."""

    reason = "MODEL_NOT_FILLED"
    elsewhere = True

    def __init__(self, kind: str, faults: Iterable[tuple[str, str]], **metadata: str) -> None:
        self.faults = tuple(faults)
        bad = error_details_pb2.BadRequest()
        for path, text in self.faults[:20]:
            bad.field_violations.add(field=path, description=text)
        told = "; ".join(f"{path}: {text}" for path, text in self.faults[:5])
        super().__init__(
            f"The model gave no valid {kind}: {told}",
            metadata={"type": kind, **metadata},
            details=[bad],
        )


class TooManySteps(rpc.OutOfRange):
    """The model wanted tools more often than it may."""

    reason = "MODEL_TOO_MANY_STEPS"


class BudgetSpent(rpc.ResourceExhausted):
    """The budget for models is spent."""

    reason = "BUDGET_SPENT"
