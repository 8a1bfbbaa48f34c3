"""How a queue treats its messages: weft.v1.QueuePolicy, checked, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from weft import rpc
from weft.v1 import message_pb2

_MAX_ATTEMPTS = 1_000
_MAX_BURST = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """See weft.v1.QueuePolicy. `publish_rate`: messages a second and burst."""

    visibility_timeout: timedelta = timedelta(seconds=30)
    max_attempts: int = 10
    backoff: timedelta = timedelta(seconds=1)
    max_backoff: timedelta = timedelta(minutes=5)
    max_depth: int = 10_000_000
    max_bytes: int = 16 * 1024**3
    dedupe_window: timedelta = timedelta(minutes=2)
    durability: int = message_pb2.DURABILITY_UNSPECIFIED
    publish_rate: tuple[float, int] | None = None
    retention: timedelta = timedelta(days=7)
    time_to_live: timedelta | None = None
    block_dead_key: bool = False


DEFAULT = Policy()
_BOUNDS = {
    "visibility_timeout": (timedelta(milliseconds=100), timedelta(hours=12)),
    "backoff": (timedelta(0), timedelta(hours=24)),
    "max_backoff": (timedelta(0), timedelta(days=7)),
    "dedupe_window": (timedelta(0), timedelta(hours=24)),
    "retention": (timedelta(0), timedelta(days=3650)),
    "time_to_live": (timedelta(milliseconds=1), timedelta(days=3650)),
}


def parse(record: message_pb2.QueuePolicy) -> Policy:
    """The policy with its defaults.

    Raises:
        InvalidArgument: a field is out of its range.
    """
    wrong: list[tuple[str, str]] = []
    given: dict[str, object] = {}
    for name, (least, most) in _BOUNDS.items():
        if record.HasField(name):  # type: ignore[arg-type]  # the stub names each field literally
            value: Duration = getattr(record, name)
            length = _length(value)
            if length is None or not least <= length <= most:
                wrong.append((f"policy.{name}", f"must be from {least} to {most}"))
            else:
                given[name] = length
    if record.max_attempts > _MAX_ATTEMPTS:
        wrong.append(("policy.max_attempts", f"must be from 1 to {_MAX_ATTEMPTS}"))
    for name in ("max_attempts", "max_depth", "max_bytes"):
        if getattr(record, name):
            given[name] = getattr(record, name)
    if record.durability not in message_pb2.Durability.values():
        wrong.append(("policy.durability", "is not one of the values of Durability"))
    given["durability"] = record.durability
    if record.HasField("publish_rate"):
        limit = record.publish_rate
        wrong += rate_violations(limit, "policy.publish_rate")
        given["publish_rate"] = (limit.per_second, limit.burst)
    given["block_dead_key"] = record.dead_key == message_pb2.DEAD_KEY_POLICY_BLOCK
    if wrong:
        raise rpc.InvalidArgument(violations=wrong)
    return Policy(**given)  # type: ignore[arg-type]  # each was checked above


def rate_violations(limit: message_pb2.RateLimit, path: str) -> list[tuple[str, str]]:
    """What is wrong with a rate limit, by field path."""
    wrong = []
    if not 0 < limit.per_second < float("inf"):
        wrong.append((f"{path}.per_second", "must be greater than 0"))
    if not 1 <= limit.burst <= _MAX_BURST:
        wrong.append((f"{path}.burst", f"must be from 1 to {_MAX_BURST}"))
    return wrong


def record_of(policy: Policy) -> message_pb2.QueuePolicy:
    """The policy as it is shown: all fields filled in."""
    record = message_pb2.QueuePolicy(
        max_attempts=policy.max_attempts,
        max_depth=policy.max_depth,
        max_bytes=policy.max_bytes,
        durability=message_pb2.Durability.Name(policy.durability),  # type: ignore[arg-type]
        dead_key=message_pb2.DEAD_KEY_POLICY_BLOCK
        if policy.block_dead_key
        else message_pb2.DEAD_KEY_POLICY_SKIP,
    )
    for name in _BOUNDS:
        value = getattr(policy, name)
        if value is not None:
            getattr(record, name).FromTimedelta(value)
    if policy.publish_rate is not None:
        record.publish_rate.per_second, record.publish_rate.burst = policy.publish_rate
    return record


def merged(
    former: message_pb2.QueuePolicy | None,
    changes: message_pb2.QueuePolicy,
    mask: FieldMask | None,
) -> message_pb2.QueuePolicy:
    """The former policy with the fields of `mask` from `changes`; with no mask, `changes`.

    Raises:
        InvalidArgument: the mask names no field of a policy.
    """
    if mask is None or not mask.paths:
        return changes
    result = message_pb2.QueuePolicy()
    if former is not None:
        result.CopyFrom(former)
    known = result.DESCRIPTOR.fields_by_name
    for path in mask.paths:
        if path not in known:
            raise rpc.InvalidArgument(
                f"{path!r} is not a field of a policy: {', '.join(known)}", field="update_mask"
            )
        result.ClearField(path)  # type: ignore[arg-type]
    chosen = message_pb2.QueuePolicy()
    mask.MergeMessage(changes, chosen)
    result.MergeFrom(chosen)
    return result


def _length(value: Duration) -> timedelta | None:
    try:
        return value.ToTimedelta()
    except (ValueError, OverflowError):
        return None
