"""Participants of debates that are called by the contract of debaters, and say no more than whom they call."""

from __future__ import annotations

from typing import Final

from weft.v1 import debater_pb2
from weft.v1.workflow_pb2 import Participant

_ANSWER: Final = debater_pb2.DESCRIPTOR.services_by_name["DebaterService"].methods_by_name["Answer"]
METHOD: Final = f"{_ANSWER.containing_service.full_name}/{_ANSWER.name}"
"""What debaters are called by, where a call names no method."""
_OPINION: Final = "reply.opinion"


def completed(participant: Participant) -> Participant:
    """A participant of a debate with what goes without saying: the method, its request, where its opinion is."""
    if participant.call.method not in {"", METHOD}:
        return participant
    made = Participant()
    made.CopyFrom(participant)
    made.call.method = METHOD
    if made.call.WhichOneof("request") is None:
        # The fields have the names by which expressions know what they take.
        made.call.fields.by_path.update(
            {field.name: field.name for field in _ANSWER.input_type.fields}
        )
    made.opinion = made.opinion or _OPINION
    return made
