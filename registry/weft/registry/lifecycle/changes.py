"""What a request of the LifecycleService makes of a Control. No input or output."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from weft.registry.fields import few, take
from weft.v1 import agent_pb2, lifecycle_pb2

Control = lifecycle_pb2.Control
Hold = lifecycle_pb2.Hold
State = agent_pb2.InstanceState

_MAX_INSTANCES = 256
_MAX_REASON = 500
_MAX_CONCURRENCY = 1_000_000
_MAX_NAME = 100
_MAX_PROMPTS = 100
_SHORTEST, _LONGEST = timedelta(milliseconds=1), timedelta(hours=1)
_FIELDS = ("max_concurrency", "timeouts", "model", "prompts")
_MAPS = ("timeouts", "prompts")


def request(instance_ids: Sequence[str], reason: str) -> Iterator[tuple[str, str]]:
    """Violations that requests of all methods can have."""
    if len(instance_ids) > _MAX_INSTANCES:
        yield "instance_ids", f"takes at most {_MAX_INSTANCES} instances"
    if len(reason) > _MAX_REASON:
        yield "reason", f"must be at most {_MAX_REASON} characters"


def settings(
    given: lifecycle_pb2.AgentSettings, methods: Collection[str]
) -> Iterator[tuple[str, str]]:
    """Violations of settings of an agent that has these methods."""
    if given.max_concurrency > _MAX_CONCURRENCY:
        yield "settings.max_concurrency", f"must be at most {_MAX_CONCURRENCY:,}"
    for name, span in given.timeouts.items():
        path = f'settings.timeouts["{name[:_MAX_NAME]}"]'
        if name not in methods:
            yield path, f"is no method of the agent; it has {', '.join(sorted(methods)) or 'none'}"
        elif not _fits(span):
            yield path, "must be 1 ms to 1 h"
    if len(given.model) > _MAX_NAME:
        yield "settings.model", f"must be at most {_MAX_NAME} characters"
    if len(given.prompts) > _MAX_PROMPTS:
        yield "settings.prompts", f"takes at most {_MAX_PROMPTS} prompts"
    for name, version in given.prompts.items():
        if not 1 <= len(name) <= _MAX_NAME or not 1 <= len(version) <= _MAX_NAME:
            path = f'settings.prompts["{name[:_MAX_NAME]}"]'
            yield path, f"must have a name and a version of 1 to {_MAX_NAME} characters"


def paths(mask: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Violations of a field mask."""
    yield from few(mask)
    for position, path in enumerate(mask):
        name, _, key = path.partition(".")
        wrong = name not in _FIELDS or (key and name not in _MAPS) or path.endswith(".")
        if wrong or len(key) > _MAX_NAME:
            known = ", ".join(_FIELDS)
            yield f"update_paths[{position}]", f"is none of {known}, or an entry of a map"


def hold(control: Control, instance_ids: Sequence[str], held: Hold) -> bool:
    """Holds an agent or some of its instances back; whether that changes anything."""
    before = _copy(control)
    held.create_time.CopyFrom(_now())
    if not instance_ids:
        if not _same(control.hold if control.HasField("hold") else None, held):
            control.hold.CopyFrom(held)
        control.instance_holds.clear()  # the agent's own says it for all
    for instance_id in instance_ids:
        if not _same(control.instance_holds.get(instance_id), held):
            control.instance_holds[instance_id].CopyFrom(held)
    return control != before


def resume(control: Control, instance_ids: Sequence[str], others: Collection[str]) -> bool:
    """Lets an agent or some of its instances go on; whether that changes anything.

    Args:
        control: changed.
        instance_ids: which; none: all.
        others: of the same agent, which stay held back when the whole agent is and these go on.
    """
    before = _copy(control)
    if not instance_ids:
        control.ClearField("hold")
        control.instance_holds.clear()
        return control != before
    if control.HasField("hold"):
        for instance_id in others:
            if instance_id not in control.instance_holds:
                control.instance_holds[instance_id].CopyFrom(control.hold)
        control.ClearField("hold")
    for instance_id in instance_ids:
        control.instance_holds.pop(instance_id, None)
    return control != before


def put(control: Control, given: lifecycle_pb2.AgentSettings, mask: Sequence[str]) -> bool:
    """Sets how an agent works; whether that changes anything."""
    before = _copy(control)
    own = control.settings
    for path in mask or [descriptor.name for descriptor, _ in given.ListFields()]:
        name, _, key = path.partition(".")
        if not key:
            take(own, given, name)
        elif key not in getattr(given, name):
            getattr(own, name).pop(key, None)
        elif name == "timeouts":
            own.timeouts[key].CopyFrom(given.timeouts[key])
        else:
            own.prompts[key] = given.prompts[key]
    if not own.ListFields():
        control.ClearField("settings")
    return control != before


def prune(control: Control, known: Collection[str]) -> None:
    """Forgets what held instances back that are gone."""
    for instance_id in [each for each in control.instance_holds if each not in known]:
        del control.instance_holds[instance_id]


def _same(now: Hold | None, wanted: Hold) -> bool:
    return now is not None and (now.state, now.reason) == (wanted.state, wanted.reason)


def _fits(span: Duration) -> bool:
    try:
        return _SHORTEST <= span.ToTimedelta() <= _LONGEST
    except (OverflowError, ValueError):
        return False


def _copy(control: Control) -> Control:
    copy = Control()
    copy.CopyFrom(control)
    return copy


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now
