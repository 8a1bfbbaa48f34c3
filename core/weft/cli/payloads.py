"""Messages as people read and write them: the payload as JSON, by the method that handles it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from weft import rpc
from weft.cli import catalog, connect, documents, failures

if TYPE_CHECKING:
    from weft.cli.catalog import Skill
    from weft.v1 import agent_pb2
    from weft.v1.message_pb2 import Message, Reply

JSON_TYPE = "application/json"
_REPLY = (
    "reply:"  # how the ids of answers to `reply_to` begin; they have the method that they answer
)


class Skills:
    """The skills of all agents that the registry knows, in service or not. Asked for when first needed.

    Args:
        registry: its address.
    """

    def __init__(self, registry: str) -> None:
        self._address = registry
        self._agents: dict[str, agent_pb2.Agent] | None = None
        self._known: dict[str, Skill | None] = {}
        self.missing = ""  # why types are not known, when the registry did not answer

    async def find(self, agent: str, method: str) -> Skill:
        """A skill by the names of its agent and method.

        Raises:
            Failure: there is none; names what is similar.
        """
        async with connect.registry(self._address) as registry:
            agents = {found.name: found for found in await registry.agents()}
            if agent not in agents:
                hint = failures.nearest(agent, agents)
                raise failures.Failure(
                    f"There is no agent {agent!r}.{hint} `weft agents` lists them."
                )
            services = agents[agent].services
            sets = await registry.descriptors(catalog.digests(services))
        return catalog.find(catalog.skills(services, sets), method, agent)

    async def of(self, path: str) -> Skill | None:
        """The skill at a gRPC path; None: no agent in the registry has it."""
        if path not in self._known:
            try:
                self._known[path] = await self._look(path)
            except (failures.Failure, rpc.Error) as failed:
                # Messages can be looked at without their types, and the registry may be what is broken.
                self.missing = str(failed)
                self._known[path] = None
        return self._known[path]

    async def _look(self, path: str) -> Skill | None:
        service = path.lstrip("/").partition("/")[0]
        async with connect.registry(self._address) as registry:
            if self._agents is None:
                self._agents = {found.name: found for found in await registry.agents()}
            wanted = [
                one
                for agent in self._agents.values()
                for one in agent.services
                if one.name == service
            ]
            if not wanted:
                return None
            sets = await registry.descriptors(catalog.digests(wanted))
        return next((skill for skill in catalog.skills(wanted, sets) if skill.path == path), None)


async def document(message: Message, skills: Skills) -> dict[str, Any]:
    """A message in ProtoJSON, its payload as the JSON of its own type where that is known, else in base64."""
    found: dict[str, Any] = json_format.MessageToDict(message)
    if not message.payload:
        return found
    if message.content_type == JSON_TYPE:
        try:
            found["payload"] = json.loads(message.payload)
        except ValueError:
            return found
    elif message.method and (skill := await skills.of(message.method)) is not None:
        answers = message.id.startswith(_REPLY)
        kind = skill.response_class if answers else skill.request_class
        found["payload"] = _typed(message.payload, skill, kind, found["payload"])
    return found


def reply_document(reply: Reply, skill: Skill | None) -> Any:
    """The payload of a reply."""
    if reply.content_type == JSON_TYPE:
        return json.loads(reply.payload)
    encoded = base64.b64encode(reply.payload).decode()
    if skill is None:
        return encoded
    return _typed(reply.payload, skill, skill.response_class, encoded)


def _typed(payload: bytes, skill: Skill, kind: Any, otherwise: Any) -> Any:
    try:
        return json_format.MessageToDict(kind.FromString(payload), descriptor_pool=skill.pool)
    except DecodeError:
        return otherwise


async def edited(message: Message, text: str, skills: Skills) -> Message:
    """A message as `document` shows it, read back.

    Raises:
        WrongSetting: it is none.
    """
    from weft.v1.message_pb2 import Message as Edited

    given = one_document(text, "message")
    if not isinstance(given, dict):
        raise failures.WrongSetting("A message is a JSON object.")
    payload = given.pop("payload", "")
    try:
        found = json_format.ParseDict(given, Edited())
    except json_format.ParseError as failed:
        raise failures.WrongSetting(f"That is no message: {failed}") from failed
    found.payload = await _payload(payload, found, message, skills)
    return found


async def _payload(given: Any, found: Message, former: Message, skills: Skills) -> bytes:
    if found.content_type == JSON_TYPE:
        # What was not JSON is shown in base64, and may stay as it is.
        if given == base64.b64encode(former.payload).decode():
            return former.payload
        return json.dumps(given, ensure_ascii=False).encode()
    if isinstance(given, str):
        try:
            return base64.b64decode(given, validate=True)
        except ValueError as failed:
            raise failures.WrongSetting(f"The payload is not base64: {failed}") from failed
    skill = await skills.of(found.method)
    if skill is None:
        raise failures.WrongSetting(
            f"Nobody in the registry has {found.method!r}: the payload must be in base64."
        )
    return request(skill, given)


def request(skill: Skill, given: Any) -> bytes:
    """A request of a skill, serialized.

    Raises:
        WrongSetting: it is none; says why.
    """
    try:
        parsed = json_format.ParseDict(given, skill.request_class(), descriptor_pool=skill.pool)
    except (ValueError, json_format.ParseError) as failed:
        name = skill.method.input_type.full_name
        why = " ".join(str(failed).split()).rstrip(".")
        raise failures.WrongSetting(
            f"The request is no {name}: {why}. `--template` of `weft send` prints one to fill in."
        ) from failed
    return parsed.SerializeToString()


def one_document(text: str, what: str) -> Any:
    """The JSON document of a text.

    Raises:
        WrongSetting: there is none, or more than one.
    """
    try:
        found = list(documents.read(text))
    except ValueError as failed:
        raise failures.WrongSetting(f"The {what} is {failed}") from failed
    if len(found) != 1:
        raise failures.WrongSetting(f"One {what} is wanted, {len(found)} were given.")
    return found[0]


def summary(shown: Mapping[str, Any], most: int = 80) -> str:
    """The payload of a document in a line."""
    payload = shown.get("payload", "")
    flat = payload if isinstance(payload, str) else json.dumps(payload, ensure_ascii=False)
    flat = " ".join(flat.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
