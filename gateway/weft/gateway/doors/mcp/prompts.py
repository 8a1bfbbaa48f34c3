"""Prompts from skills, and completion of arguments.

A prompt from a skill's examples asks a model to use the tool as the first example does; its arguments are the
request's fields: what is given replaces what the example says. A skill whose option says that it makes a prompt is
called with them instead, and what it answers is the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from google.protobuf.descriptor import FieldDescriptor

from weft.gateway.doors.mcp import protocol
from weft.gateway.doors.mcp.listing import Entry
from weft.gateway.doors.mcp.protocol import Outcome
from weft.gateway.doors.mcp.resources import AGENT_TEMPLATE, Card, Offered
from weft.gateway.doors.mcp.tools import Tool
from weft.gateway.openapi.schemas import is_required
from weft.gateway.transcoding.fields import by_any_name
from weft.v1 import options_pb2

Json = dict[str, Any]

_MOST_VALUES = 100  # what a completion may hold


class Prompt:
    """A skill as a prompt.

    Attributes:
        made_by_agent: whether the skill makes it; else its examples do.
    """

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.made_by_agent = tool.method.skill.prompt
        fields = by_any_name(tool.method.input)
        examples = [_object(text) for text in tool.method.skill.examples]
        # Under the names that tools use, whichever way an example spells them.
        self._examples = [
            {fields[key].json_name if key in fields else key: value for key, value in each.items()}
            for each in examples
        ]
        self._fields = {
            field.json_name: field
            for field in tool.method.input.fields
            if field.message_type is None and not field.is_repeated and not _hints(field).secret
        }

    def entry(self) -> Entry:
        """Its place in the list of prompts."""
        tool = self.tool
        arguments = [
            {
                "name": name,
                "description": _hints(field).description or self._default_hint(name),
                "required": self.made_by_agent and is_required(field),
            }
            for name, field in self._fields.items()
        ]
        shown = {
            "name": tool.name,
            "title": tool.title,
            "description": tool.description,
            "arguments": arguments,
        }
        return Entry(key=tool.name, ways=tool.ways, body=lambda: orjson.dumps(shown))

    def arguments(self, given: object) -> dict[str, str]:
        """What a caller gave, if it fits.

        Raises:
            ProtocolError: an argument is none of its own, or no text.
        """
        if given is None:
            return {}
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise protocol.invalid("arguments must be an object of strings")
        if unknown := given.keys() - self._fields.keys():
            raise protocol.invalid(f"unknown arguments: {', '.join(sorted(unknown))}")
        return given

    def from_example(self, arguments: dict[str, str]) -> Outcome:
        """The prompt that the examples make."""
        filled = (self._examples[0] if self._examples else {}) | {
            name: _typed(self._fields[name], value) for name, value in arguments.items()
        }
        tool = self.tool
        text = (
            f"Use the tool `{tool.name}` ({tool.description}) with these arguments:\n\n"
            f"```json\n{orjson.dumps(filled, option=orjson.OPT_INDENT_2).decode()}\n```"
        )
        return self.of([{"type": "text", "text": text}])

    def of(self, contents: Iterable[Json]) -> Outcome:
        """The prompt of these contents."""
        messages = [{"role": "user", "content": each} for each in contents]
        shown = {"description": self.tool.description, "messages": messages}
        return Outcome(body=orjson.dumps(shown))

    def _default_hint(self, name: str) -> str:
        return f"The skill's {name}." if self.made_by_agent else f"Replaces {name} of the example."

    def values(self, argument: str) -> list[str] | None:
        """What an argument may be, as far as is known; None: it has no such argument."""
        field = self._fields.get(argument)
        if field is None:
            return None
        if field.enum_type is not None:
            return [value.name for value in field.enum_type.values]
        if field.type == FieldDescriptor.TYPE_BOOL:
            return ["true", "false"]
        return [_text(each[argument]) for each in self._examples if argument in each]


def complete(values: Iterable[str], begun: str) -> Outcome:
    """The values that begin as a caller began, in either case."""
    fitting = list(dict.fromkeys(v for v in values if v.lower().startswith(begun.lower())))
    shown = {
        "values": fitting[:_MOST_VALUES],
        "total": len(fitting),
        "hasMore": len(fitting) > _MOST_VALUES,
    }
    return Outcome(body=orjson.dumps({"completion": shown}))


def values_of_template(
    uri: str, variable: str, cards: Iterable[Card], offers: Iterable[Offered]
) -> list[str] | None:
    """What a variable of a template may be, as far as is known; None: there is no such variable."""
    if uri == AGENT_TEMPLATE and variable == "name":
        return [card.agent.name for card in cards]
    for offer in offers:
        if offer.uri == uri and variable in offer.variables:
            field = offer.tool.method.input.fields_by_name[variable]
            return Prompt(offer.tool).values(field.json_name)
    return None


def _object(text: str) -> Json:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _typed(field: FieldDescriptor, value: str) -> Any:
    """An argument as JSON has it; agents take numbers as strings too."""
    if field.type == FieldDescriptor.TYPE_BOOL and value in {"true", "false"}:
        return value == "true"
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _hints(field: FieldDescriptor) -> options_pb2.FieldHints:
    return field.GetOptions().Extensions[options_pb2.hints]
