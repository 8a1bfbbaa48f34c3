"""Agent cards (specification, 8): who can be asked for what, one card for each agent and one for the mesh.

A public card names the skills that need no scope; the extended one those that its caller may use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import Any

from weft.gateway.doors.a2a import protocol
from weft.gateway.doors.a2a.protocol import Json
from weft.gateway.doors.a2a.skills import JSON, MESH, PROTOBUF, TEXT, Skill, SkillSet
from weft.gateway.doors.mcp.schemas import input_schema, output_schema

_MESH_NAME = "Weft agent mesh"
_MESH_DESCRIPTION = (
    "All agents of a Weft mesh: name the skill to call, in the metadata of a message."
)
_EXTENSION_DESCRIPTION = (
    "Typed skills: params.skills holds JSON schemas by skill id. A message names its skill by "
    f'metadata["{protocol.EXTENSION}"].skill and carries the request as a part with data; "answer": "message" there '
    "asks for a Message in the place of a Task."
)
_SCHEMES: Json = {
    "bearer": {
        "httpAuthSecurityScheme": {
            "scheme": "Bearer",
            "description": "An API key of Weft, or a token of an issuer that the gateway accepts.",
        }
    },
    "apiKey": {"apiKeySecurityScheme": {"location": "header", "name": "x-api-key"}},
}


def card(
    skills: SkillSet,
    url: str,
    grpc: str,
    *,
    asks: bool,
    scopes: Collection[str] | None = frozenset(),
) -> Json:
    """A card.

    Args:
        skills: what is offered.
        url: where the agent is reached by HTTP.
        grpc: "host:port" of the gRPC port.
        asks: whether callers must say who they are.
        scopes: skills that need others are left out; None: none is.
    """
    shown = [
        each
        for each in skills.skills.values()
        if scopes is None or set(each.method.skill.required_scopes) <= set(scopes)
    ]
    document: Json = {
        **_described(skills),
        "version": _version(skills),
        "supportedInterfaces": _interfaces(skills.agent, url, grpc),
        "capabilities": {
            "streaming": True,
            "pushNotifications": True,
            "extendedAgentCard": True,
            "extensions": [_extension(shown)],
        },
        "defaultInputModes": [JSON, TEXT, PROTOBUF],
        "defaultOutputModes": [JSON, TEXT, PROTOBUF],
        "skills": [_skill(each) for each in shown],
    }
    if asks:
        document["securitySchemes"] = _SCHEMES
        document["securityRequirements"] = [{"schemes": {name: {}}} for name in _SCHEMES]
    return document


def _interfaces(agent: str, url: str, grpc: str) -> list[Json]:
    """The ways to an agent, the one that most callers speak first.

    At the gRPC port, which has no paths, the tenant says which agent is meant.
    """
    ways: list[Json] = [
        {"url": url, "protocolBinding": "JSONRPC"},
        {"url": url, "protocolBinding": "HTTP+JSON"},
        {"url": grpc, "protocolBinding": "GRPC", "tenant": agent},
    ]
    return [way | {"protocolVersion": protocol.VERSION} for way in ways]


def _described(skills: SkillSet) -> Json:
    if skills.agent == MESH:
        return {"name": _MESH_NAME, "description": _MESH_DESCRIPTION}
    described = (each.method.agent.description for each in skills.skills.values())
    text = next(filter(None, described), f"The agent {skills.agent}.")
    return {"name": skills.agent, "description": text}


def _version(skills: SkillSet) -> str:
    """Of the contract: it changes when, and only when, what the agent offers does."""
    digests = sorted({f"{each.method.schema.digest}{each.id}" for each in skills.skills.values()})
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def _extension(shown: Iterable[Skill]) -> Json:
    return {
        "uri": protocol.EXTENSION,
        "description": _EXTENSION_DESCRIPTION,
        "params": {"skills": {each.id: _schemas(each) for each in shown}},
    }


def _schemas(skill: Skill) -> dict[str, Any]:
    method = skill.method
    found: dict[str, Any] = {
        "input": input_schema(method.input),
        "streams": method.server_streaming,
        "idempotency": method.idempotency.name,
    }
    output = output_schema(method.output, stream=False)
    if output is not None:
        found["output"] = output
    return found


def _skill(skill: Skill) -> Json:
    method = skill.method
    examples = list(method.skill.examples)
    return {
        "id": skill.id,
        "name": f"{method.agent.name}: {method.name}",
        "description": method.skill.description or f"Calls {skill.id}.",
        "tags": list(method.skill.tags or method.agent.tags or (method.agent.name,)),
        **({"examples": examples} if examples else {}),
        "inputModes": list(skill.input_modes),
        "outputModes": list(skill.output_modes),
    }
