"""A message as the call that it is for whoever handles it: its identity, conversation, trace and deadline."""

from __future__ import annotations

import time
from urllib.parse import quote, unquote

from weft import rpc
from weft.rpc.call import IDENTITY_KEY, RUN_KEY, TRACEPARENT_KEY, Call, Metadata
from weft.v1 import message_pb2

MESSAGE_KEY = "weft-message-id"
QUEUE_KEY = "weft-message-queue"
SENDER_KEY = "weft-message-sender"
ATTEMPT_KEY = "weft-attempt"


def call_of(
    delivery: message_pb2.MessageDelivery, method: str, most: float, *, queue: str = ""
) -> Call:
    """The call that a message is. Calls made while it is handled carry its identity, conversation, run and trace on.

    Args:
        delivery: the message.
        method: gRPC path of its handler.
        most: seconds it may take; less where the message expires before that.
        queue: where it was; by default the message's recipient.
    """
    message = delivery.message
    if message.HasField("expire_time"):
        most = max(0.0, min(most, message.expire_time.ToMilliseconds() / 1000 - time.time()))
    metadata = metadata_of(delivery, queue)
    if message.traceparent:
        metadata = (*metadata, (TRACEPARENT_KEY, message.traceparent))
    identity = None
    if message.HasField("identity"):
        identity = (IDENTITY_KEY, message.identity.SerializeToString())
    call = Call.at_door(method, metadata, rpc.Deadline.after_seconds(most), identity)
    if message.conversation:
        call.conversation = message.conversation
    if run := message.attributes.get(RUN_KEY):
        call.run = run
    return call


def metadata_of(delivery: message_pb2.MessageDelivery, queue: str = "") -> Metadata:
    """Tells a skill which message its call is, and of which queue; by default the message's recipient."""
    message = delivery.message
    return (
        (QUEUE_KEY, queue or message.recipient),
        (MESSAGE_KEY, _ascii(message.id)),
        (SENDER_KEY, _ascii(message.sender)),
        (ATTEMPT_KEY, str(delivery.attempt)),
    )


def message_of(call: Call) -> tuple[str, str, str] | None:
    """Queue, sender and id of the message that a call is; None: it is a plain call."""
    queue, sender, message_id = map(call.first, (QUEUE_KEY, SENDER_KEY, MESSAGE_KEY))
    if isinstance(queue, str) and isinstance(sender, str) and isinstance(message_id, str):
        return queue, unquote(sender), unquote(message_id)
    return None


def _ascii(text: str) -> str:
    # Metadata is visible ASCII; "%" must be told from the mark of what was encoded.
    return quote(text, safe="!#$&'()*+,/:;=?@[]{}<>|^`\"\\ ") if _odd(text) else text


def _odd(text: str) -> bool:
    return not (text.isascii() and text.isprintable()) or "%" in text or text != text.strip()
