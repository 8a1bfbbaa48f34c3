"""A query, checked once and then held against instances."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from weft import rpc
from weft.registry import labels
from weft.registry.catalog import Catalog, Service
from weft.registry.discovery import types
from weft.registry.errors import NeverRegistered
from weft.registry.index import IN_SERVICE, Index, Instance, State
from weft.registry.versions import Range
from weft.v1 import agent_pb2
from weft.v1 import discovery_pb2 as pb

_MAX_CAPABILITIES = 20
_MAX_TEXT = 500
_MAX_SELECTOR = 1_000
_MAX_RANGE = 200
_MAX_NAME = 500

T = TypeVar("T")
Lacks = Callable[[Instance], str]


class Criteria:
    """What an instance must meet.

    Attributes:
        asked: the query it was made from.

    Raises:
        rpc.InvalidArgument: naming the fields that are wrong.
    """

    def __init__(self, query: pb.AgentQuery, index: Index, sets: Catalog) -> None:
        self.asked = query
        self._index = index
        self._sets = sets
        self._skills: dict[tuple[str, str], list[pb.MatchedSkill]] = {}
        violations = list(_violations(query))
        self._labels = _parsed(violations, "query.labels", labels.parse, query.labels) or ()
        self._range = _parsed(violations, "query.version", Range, query.version)
        if violations:
            raise rpc.InvalidArgument(violations=violations)
        # Each with the field it belongs to; those that are not asked for cost nothing.
        tests: dict[str, Lacks] = {
            "agent": self._lacks_agent,
            "service": self._lacks_service,
            "capabilities": self._lacks_capability,
            "labels": self._lacks_label,
            "version": self._lacks_version,
            "zone": self._lacks_zone,
            "accepts": self._lacks_request,
            "produces": self._lacks_response,
        }
        self._tests = [(field, test) for field, test in tests.items() if getattr(query, field)]

    def unknown(self) -> Iterator[tuple[str, str, str]]:
        """What was never registered, by anybody: field, kind and name."""
        asked = self.asked
        if asked.agent and asked.agent not in self._index:
            yield "agent", "agent", asked.agent
        if asked.service and self._index.serving(asked.service) is None:
            yield "service", "service", asked.service
        for word in asked.capabilities:
            if self._index.capable(word) is None:
                yield "capabilities", "capability", word
        for field in ("accepts", "produces"):
            name = getattr(asked, field)
            if name and not self._sets.has_type(name):
                yield field, "message_type", name

    def check_known(self) -> None:
        """Makes sure that what the query names was once registered.

        Raises:
            NeverRegistered: it was not.
        """
        for _, kind, name in self.unknown():
            raise NeverRegistered(kind, name)

    def met_by(self, instance: Instance) -> bool:
        """Whether an instance is in service and meets all but the words of the query."""
        return instance.state in IN_SERVICE and not any(test(instance) for _, test in self._tests)

    def misses(self, instance: Instance) -> Iterator[pb.Miss]:
        """What keeps an instance from being found, but for the words of the query."""
        if instance.state not in IN_SERVICE:
            name = State.Name(instance.state).removeprefix("INSTANCE_STATE_")
            why = f": {instance.state_reason}" if instance.state_reason else ""
            yield pb.Miss(field="state", reason=f"it is {name}{why}")
        for field, test in self._tests:
            if reason := test(instance):
                yield pb.Miss(field=field, reason=reason)

    def skills(self, services: Iterable[agent_pb2.ServiceRef]) -> list[pb.MatchedSkill]:
        """The skills of services that take and give what is asked; none when neither is asked."""
        return [skill for ref in services for skill in self._skills_of(ref)]

    def _skills_of(self, ref: agent_pb2.ServiceRef) -> list[pb.MatchedSkill]:
        key = (ref.name, ref.descriptor_digest)
        found = self._skills.get(key)
        if found is None:
            service = self._sets.service(ref)
            found = [] if service is None else list(self._fitting(service))
            self._skills[key] = found
        return found

    def _fitting(self, service: Service) -> Iterator[pb.MatchedSkill]:
        accepts, produces = self.asked.accepts, self.asked.produces
        for method in service.methods if accepts or produces else ():
            taken = types.place_of(accepts, method.request, service.messages) if accepts else ""
            given = types.place_of(produces, method.response, service.messages) if produces else ""
            if taken is not None and given is not None:
                yield pb.MatchedSkill(
                    path=method.path,
                    description=method.skill.description,
                    accepts_at=taken,
                    produces_at=given,
                )

    def _lacks_agent(self, instance: Instance) -> str:
        if instance.agent == self.asked.agent:
            return ""
        return f"it is of agent {instance.agent}, and {self.asked.agent} is asked for"

    def _lacks_service(self, instance: Instance) -> str:
        if any(ref.name == self.asked.service for ref in instance.services):
            return ""
        serves = ", ".join(ref.name for ref in instance.services)
        return f"it serves {serves}, and not {self.asked.service}"

    def _lacks_capability(self, instance: Instance) -> str:
        lacking = [word for word in self.asked.capabilities if word not in instance.capabilities]
        return f"it cannot {', '.join(lacking)}" if lacking else ""

    def _lacks_label(self, instance: Instance) -> str:
        for one in self._labels:
            if not one.met_by(instance.labels):
                has = instance.labels.get(one.key)
                shown = f"no label {one.key}" if has is None else f"{one.key}={has}"
                return f"it has {shown}, and {one.text} is asked for"
        return ""

    def _lacks_version(self, instance: Instance) -> str:
        if self._range is None or instance.version in self._range:
            return ""
        return f"it is {instance.version}, and {self.asked.version} is asked for"

    def _lacks_zone(self, instance: Instance) -> str:
        if instance.zone == self.asked.zone:
            return ""
        return f"it is in {instance.zone or 'no zone'}, and {self.asked.zone} is asked for"

    def _lacks_request(self, instance: Instance) -> str:
        if self.skills(instance.services):
            return ""
        both = f" and answers with {self.asked.produces}" if self.asked.produces else ""
        return f"no skill of it takes {self.asked.accepts}{both}"

    def _lacks_response(self, instance: Instance) -> str:
        if self.asked.accepts or self.skills(instance.services):
            return ""  # with both, one skill must do both, and `accepts` has said so
        return f"no skill of it answers with {self.asked.produces}"


def _violations(query: pb.AgentQuery) -> Iterator[tuple[str, str]]:
    if not query.ListFields():
        yield "query", "must ask for something: set at least one field"
    if len(query.capabilities) > _MAX_CAPABILITIES:
        yield "query.capabilities", f"takes at most {_MAX_CAPABILITIES} words"
    for field, most in (
        *(("labels", _MAX_SELECTOR), ("version", _MAX_RANGE), ("text", _MAX_TEXT)),
        *((name, _MAX_NAME) for name in ("agent", "service", "zone", "accepts", "produces")),
    ):
        if len(getattr(query, field)) > most:
            yield f"query.{field}", f"must be at most {most:,} characters"
    if "\0" in query.text:
        yield "query.text", "must have no zero characters"


def _parsed(
    violations: list[tuple[str, str]], field: str, parse: Callable[[str], T], text: str
) -> T | None:
    known = {name for name, _ in violations}
    if not text or field in known:
        return None
    try:
        return parse(text)
    except ValueError as failed:
        violations.append((field, str(failed)))
        return None
