"""The rules of weft/v1/agent.proto and registry.proto for what a process sends. Violations name the field's path."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator

from weft import rpc
from weft.v1 import agent_pb2, registry_pb2

State = agent_pb2.InstanceState
Violations = Iterator[tuple[str, str]]

_INSTANCE_ID = re.compile(r"[a-z0-9-]{1,64}")
_AGENT = re.compile(r"[a-z][a-z0-9-]{0,62}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SERVICE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
# semver.org, the expression it recommends, with digits that are those of ASCII.
_NUMBER = r"(?:0|[1-9][0-9]*)"
_PRE = rf"(?:{_NUMBER}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PRE}(?:\.{_PRE})*)?(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?"
)
_MAX_INSTANCES = 256
_MAX_SERVICES = 32
_MAX_LABELS = 32
_MAX_CAPABILITIES = 64
_MAX_CONCURRENCY = 1_000_000
_MAX_TEXT = 100
_MAX_REASON = 500
_MAX_DIGESTS = 100
_MAX_PROBLEMS = 20
_SET_BY_REGISTRY = frozenset(("state_reason", "load", "register_time", "spiffe_id", "subset"))
_AT_REGISTRATION = frozenset(
    (
        State.INSTANCE_STATE_UNSPECIFIED,
        State.INSTANCE_STATE_STARTING,
        State.INSTANCE_STATE_SERVING,
    )
)
_ANNOUNCED = frozenset(
    (
        State.INSTANCE_STATE_STARTING,
        State.INSTANCE_STATE_SERVING,
        State.INSTANCE_STATE_DEGRADED,
        State.INSTANCE_STATE_DRAINING,
    )
)


def check(violations: Violations) -> None:
    """Raises rpc.InvalidArgument when there is any violation."""
    found = list(violations)
    if found:
        raise rpc.InvalidArgument(violations=found)


def registration(message: registry_pb2.Registration) -> Violations:
    """Rules of a Registration."""
    if not 1 <= len(message.instances) <= _MAX_INSTANCES:
        yield "registration.instances", f"takes 1 to {_MAX_INSTANCES} instances"
        return
    ids: set[str] = set()
    places: set[tuple[str, str]] = set()
    for position, instance in enumerate(message.instances):
        path = f"registration.instances[{position}]"
        yield from ((f"{path}.{field}", text) for field, text in _instance(instance))
        if instance.instance_id in ids:
            yield f"{path}.instance_id", "comes twice in this registration"
        if (instance.agent, instance.address) in places:
            yield f"{path}.address", "is that of another instance of the same agent"
        ids.add(instance.instance_id)
        places.add((instance.agent, instance.address))


def _instance(instance: agent_pb2.Instance) -> Violations:
    if not _INSTANCE_ID.fullmatch(instance.instance_id):
        yield "instance_id", "must be 1 to 64 characters of a-z, 0-9 and hyphen"
    if not _AGENT.fullmatch(instance.agent):
        yield "agent", "must be 1 to 63 of a-z, 0-9 and hyphen, beginning with a letter"
    if fault := _address_fault(instance.address):
        yield "address", fault
    yield from _services(instance)
    if len(instance.version) > _MAX_TEXT or not _VERSION.fullmatch(instance.version):
        yield (
            "version",
            f'must be a semantic version of at most {_MAX_TEXT} characters, such as "1.4.0"',
        )
    if len(instance.zone) > _MAX_TEXT:
        yield "zone", f"must be at most {_MAX_TEXT} characters"
    yield from _words(instance)
    if not 1 <= instance.max_concurrency <= _MAX_CONCURRENCY:
        yield "max_concurrency", f"must be 1 to {_MAX_CONCURRENCY:,}"
    yield from _applied(instance.applied)
    if instance.state not in _AT_REGISTRATION:
        yield "state", "must be STARTING or SERVING, or not set"
    for descriptor, _ in instance.ListFields():
        if descriptor.name in _SET_BY_REGISTRY:
            yield descriptor.name, "is set by the registry and must be empty"


def _words(instance: agent_pb2.Instance) -> Violations:
    if len(instance.labels) > _MAX_LABELS:
        yield "labels", f"takes at most {_MAX_LABELS} labels"
    for key, value in instance.labels.items():
        if not key or len(key) > _MAX_TEXT or len(value) > _MAX_TEXT:
            path = f'labels["{key[:_MAX_TEXT]}"]'
            yield path, f"has an empty key, or a key or value of over {_MAX_TEXT} characters"
    if len(instance.capabilities) > _MAX_CAPABILITIES:
        yield "capabilities", f"takes at most {_MAX_CAPABILITIES} words"
    for position, word in enumerate(instance.capabilities):
        if not 1 <= len(word) <= _MAX_TEXT or "\0" in word:
            yield (
                f"capabilities[{position}]",
                f"must be 1 to {_MAX_TEXT} characters, none of them zero",
            )


def _services(instance: agent_pb2.Instance) -> Violations:
    if not 1 <= len(instance.services) <= _MAX_SERVICES:
        yield "services", f"takes 1 to {_MAX_SERVICES} services"
    names: set[str] = set()
    for position, ref in enumerate(instance.services):
        path = f"services[{position}]"
        if not _SERVICE.fullmatch(ref.name):
            yield f"{path}.name", 'must be a full name, such as "weft.support.v1.TriageService"'
        if ref.name in names:
            yield f"{path}.name", "comes twice in this instance"
        if not _DIGEST.fullmatch(ref.descriptor_digest):
            yield f"{path}.descriptor_digest", "must be 64 lower-case hexadecimal digits"
        names.add(ref.name)


def _address_fault(address: str) -> str:
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return 'must be an IP address and port, such as "127.0.0.1:50051" or "[::1]:50051"'
    if bracketed != (ip.version == 6) or "%" in host:  # noqa: PLR2004 the version of the protocol
        return 'must be written "127.0.0.1:50051" or "[::1]:50051"'
    if ip.is_unspecified or ip.is_multicast:
        return "must be an address that others can call"
    if not (colon and _PORT.fullmatch(port) and int(port) <= 65_535):  # noqa: PLR2004 ports
        return "must end with a port of 1 to 65535"
    return ""


def state_change(message: registry_pb2.StateChange, held: Collection[str]) -> Violations:
    """Rules of a StateChange of a lease that holds the instances `held`."""
    if message.state not in _ANNOUNCED:
        yield "state_change.state", "must be STARTING, SERVING, DEGRADED or DRAINING"
    if len(message.reason) > _MAX_REASON:
        yield "state_change.reason", f"must be at most {_MAX_REASON} characters"
    for position, instance_id in enumerate(message.instance_ids):
        if instance_id not in held:
            yield f"state_change.instance_ids[{position}]", "is not an instance of this lease"


def applied(message: registry_pb2.DirectiveApplied, held: Collection[str]) -> Violations:
    """Rules of a DirectiveApplied of a lease that holds the instances `held`."""
    if message.instance_id not in held:
        yield "applied.instance_id", "is not an instance of this lease"
    yield from ((f"applied.{field}", text) for field, text in _applied(message.applied))


def _applied(message: agent_pb2.Applied) -> Violations:
    if message.version < 0:
        yield "applied.version", "must not be negative"
    if len(message.problems) > _MAX_PROBLEMS:
        yield "applied.problems", f"takes at most {_MAX_PROBLEMS} problems"
    for position, problem in enumerate(message.problems):
        if len(problem) > _MAX_REASON:
            yield f"applied.problems[{position}]", f"must be at most {_MAX_REASON} characters"


def report(message: registry_pb2.LoadReport, held: Collection[str]) -> Violations:
    """Rules of a LoadReport of a lease that holds the instances `held`."""
    for instance_id, load in message.loads.items():
        path = f'report.loads["{instance_id[:_MAX_TEXT]}"]'
        if instance_id not in held:
            yield path, "is not an instance of this lease"
        if load.latency_ewma.seconds < 0 or load.latency_ewma.nanos < 0:
            yield f"{path}.latency_ewma", "must not be negative"


def digests(asked: Collection[str]) -> Violations:
    """Rules of a GetDescriptorsRequest."""
    if not 1 <= len(asked) <= _MAX_DIGESTS:
        yield "digests", f"takes 1 to {_MAX_DIGESTS} digests"
    for position, digest in enumerate(asked):
        if not _DIGEST.fullmatch(digest):
            yield f"digests[{position}]", "must be 64 lower-case hexadecimal digits"
