"""Prompts from the examples of skills, and completion of arguments.

A prompt asks a model to use one tool as its first example does. The fields of that example are the prompt's
arguments: what is given replaces what the example says.
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
from weft.gateway.transcoding.fields import by_any_name
from weft.v1 import options_pb2

Json = dict[str, Any]

_MOST_VALUES = 100  # what a completion may hold


class Prompt:
    """A tool's examples as a prompt."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
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
                "description": _hints(field).description or f"Replaces {name} of the example.",
                "required": False,
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

    def get(self, arguments: object) -> Outcome:
        """The prompt with arguments filled in.

        Raises:
            ProtocolError: an argument is none of its own, or no text.
        """
        given = arguments if arguments is not None else {}
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise protocol.invalid("arguments must be an object of strings")
        if unknown := given.keys() - self._fields.keys():
            raise protocol.invalid(f"unknown arguments: {', '.join(sorted(unknown))}")
        filled = (self._examples[0] if self._examples else {}) | {
            name: _typed(self._fields[name], value) for name, value in given.items()
        }
        tool = self.tool
        text = (
            f"Use the tool `{tool.name}` ({tool.description}) with these arguments:\n\n"
            f"```json\n{orjson.dumps(filled, option=orjson.OPT_INDENT_2).decode()}\n```"
        )
        message = {"role": "user", "content": {"type": "text", "text": text}}
        shown = {"description": tool.description, "messages": [message]}
        return Outcome(body=orjson.dumps(shown))

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
