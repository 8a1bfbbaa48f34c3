"""Which skill a message is for.

A2A has no word for it. In this order: the skill that `message.metadata` names under the extension's URI; the skill of the
task that the message continues; the only skill of the agent; for plain text, the agent's first skill that takes text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from weft import rpc
from weft.gateway.doors.a2a import protocol
from weft.gateway.transcoding.catalog import Catalog, Method
from weft.gateway.transcoding.fields import SPECIAL_JSON

MESH = "-"
"""In the place of an agent: all of them. No agent can have this name."""

TEXT = "text/plain"
JSON = "application/json"
PROTOBUF = "application/x-protobuf"
PROTOBUF_TYPES = frozenset({PROTOBUF, "application/protobuf"})

MESSAGE = "lf.a2a.v1.Message"
ARTIFACT = "lf.a2a.v1.Artifact"
SEND_MESSAGE_RESPONSE = "lf.a2a.v1.SendMessageResponse"
"""Types of A2A itself: who uses them is written for A2A."""

_TEXT_FIELD = "text"


class SkillUnknown(rpc.InvalidArgument):
    """The agent has no skill of this name."""

    reason = "SKILL_UNKNOWN"


class SkillNotNamed(rpc.InvalidArgument):
    """The agent has several skills, and the message names none."""

    reason = "SKILL_NOT_NAMED"


class Skill:
    """A method as A2A shows it."""

    __slots__ = (
        *("id", "input_modes", "method", "output_modes", "takes_message", "text_in", "text_out"),
    )

    def __init__(self, method: Method) -> None:
        self.method = method
        self.id = method.full_name
        self.takes_message = method.input.full_name == MESSAGE
        self.text_in = "parts" if self.takes_message else _text_field(method.input)
        self.text_out = _text_field(method.output)
        if self.takes_message:
            self.input_modes: tuple[str, ...] = (TEXT, JSON, "*/*")
            self.output_modes: tuple[str, ...] = (TEXT, JSON, "*/*")
            return
        self.input_modes = (JSON, *([TEXT] if self.text_in else []), PROTOBUF)
        self.output_modes = (JSON, *([TEXT] if self.text_out else []), PROTOBUF)


class SkillSet:
    """The skills behind one card: of an agent, or of the mesh."""

    def __init__(self, agent: str, skills: Iterable[Skill]) -> None:
        self.agent = agent
        self.skills: Mapping[str, Skill] = MappingProxyType({each.id: each for each in skills})

    def choose(self, named: object, continued: str, *, only_text: bool) -> Skill:
        """The skill of a message.

        Args:
            named: what the message says; None: nothing.
            continued: skill of the task that it continues; empty: it begins one.
            only_text: whether there is nothing but text in it.

        Raises:
            SkillUnknown, SkillNotNamed: see there.
        """
        field = f'message.metadata["{protocol.EXTENSION}"].skill'
        if named is not None or continued:
            wanted = continued if named is None else named
            if not isinstance(wanted, str) or wanted not in self.skills:
                raise SkillUnknown(f"is none of: {self._names()}", field=field)
            if continued and wanted != continued:
                raise SkillUnknown(f"the task is one of {continued}", field=field)
            return self.skills[wanted]
        if len(self.skills) == 1:
            return next(iter(self.skills.values()))
        if only_text and self.agent != MESH:
            for skill in self.skills.values():
                if skill.text_in:
                    return skill
        raise SkillNotNamed(f"name one of: {self._names()}", field=field)

    def _names(self) -> str:
        return ", ".join(self.skills) or "no skill at all"


def skill_sets(catalog: Catalog) -> dict[str, SkillSet]:
    """All agents' skills, and those of the mesh. Methods that take a stream are no skills: a message is one request."""
    by_agent: dict[str, list[Skill]] = {}
    for method in catalog.methods.values():
        skills = by_agent.setdefault(method.agent.name, [])
        if not method.client_streaming:
            skills.append(Skill(method))
    sets = {agent: SkillSet(agent, skills) for agent, skills in by_agent.items()}
    sets[MESH] = SkillSet(MESH, (each for skills in by_agent.values() for each in skills))
    return sets


def _text_field(message: Descriptor) -> str:
    """JSON name of the field that plain text goes to: the one called `text`, or else the only string; empty: none."""
    if message.full_name in SPECIAL_JSON:
        return ""
    strings = [
        each
        for each in message.fields
        if each.type == FieldDescriptor.TYPE_STRING and not each.is_repeated
    ]
    for each in strings:
        if each.name == _TEXT_FIELD:
            return each.json_name
    return strings[0].json_name if len(strings) == 1 else ""
