"""What came of a run of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from weft.support.v1 import escalation_pb2, supervisor_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        response: its result; None: there is none.
        deciding: whether a person decides, and the customer hears of it later.
        unopened: the ticket that could not be opened; None: it was, or none was needed, or it is not known.
        why: what is to be said where there is no result, for people.
    """

    response: supervisor_pb2.HandleResponse | None = None
    deciding: bool = False
    unopened: escalation_pb2.OpenTicketRequest | None = None
    why: str = ""
