"""Errors a client of the broker can make or meet, each with its reason."""

from __future__ import annotations

from weft import rpc


class RecipientUnknown(rpc.NotFound):
    """There is no queue of this name; it is made when its agent first consumes, or by SetQueue."""

    reason = "RECIPIENT_UNKNOWN"


class QueueUnknown(rpc.NotFound):
    """There is no queue of this name."""

    reason = "QUEUE_UNKNOWN"


class MessageTooLarge(rpc.InvalidArgument):
    """The message is larger than the broker takes; send a reference to its content instead."""

    reason = "MESSAGE_TOO_LARGE"


class QueueFull(rpc.ResourceExhausted):
    """The queue has as many messages as its policy allows; try again when some are handled."""

    reason = "QUEUE_FULL"


class RateLimited(rpc.ResourceExhausted):
    """More messages a second than the limit allows; try again later."""

    reason = "RATE_LIMITED"


class StoreUnavailable(rpc.Unavailable):
    """Redis cannot be reached or takes no writes now; nothing is known of the message, publish it again with the same id."""

    reason = "STORE_UNAVAILABLE"


class BrokerStopping(rpc.Unavailable):
    """The broker is stopping; go on with another one. What was not answered is published again under the same id."""

    reason = "BROKER_STOPPING"


class LeaseExpired(rpc.FailedPrecondition):
    """The lease ran out: the message went, or goes, to another consumer."""

    reason = "LEASE_EXPIRED"


class LeaseUnknown(rpc.FailedPrecondition):
    """No such lease is held by this stream; it may have been settled already."""

    reason = "LEASE_UNKNOWN"


class DeadLetterUnknown(rpc.NotFound):
    """There is no dead letter of this id in the queue; an edit gives a new one."""

    reason = "DEAD_LETTER_UNKNOWN"


class SubscriptionUnknown(rpc.NotFound):
    """There is no subscription of this name."""

    reason = "SUBSCRIPTION_UNKNOWN"


class ArchiveUnavailable(rpc.Unavailable):
    """The archive cannot be reached now; messages are kept and delivered all the same."""

    reason = "ARCHIVE_UNAVAILABLE"
