"""Protobuf messages as JSON that a model can write: a schema made of a descriptor, and the way back with every fault named.

An answer is not ProtoJSON: models are held to schemas without recursion, free keys or bounds (platform.claude.com/docs,
structured outputs), and what they leave out must not become a zero that they never said. Arguments, of tools, are ProtoJSON:
what is left out has its default, as in any request.
"""

from weft.agents.filling.json_text import Unfit, json_of
from weft.agents.filling.reading import read
from weft.agents.filling.schema import Schema, schema_of
from weft.agents.filling.writing import write

__all__ = ["Schema", "Unfit", "json_of", "read", "schema_of", "write"]
