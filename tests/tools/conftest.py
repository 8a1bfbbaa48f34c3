"""Messages with secrets, and audits of both kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.message import Message

from weft.agents.tools import DatabaseAudit, database
from weft.v1 import options_pb2

F = descriptor_pb2.FieldDescriptorProto


@pytest.fixture
async def audit(database_url: str) -> AsyncIterator[DatabaseAudit]:
    opened = await database(database_url)
    yield DatabaseAudit(opened)
    await opened.close()


@pytest.fixture(scope="session")
def login() -> type[Message]:
    """A message with secrets of every shape, of a pool of its own."""
    pool = descriptor_pool.DescriptorPool()
    for each in (descriptor_pb2, struct_pb2, options_pb2):
        _add(pool, each.DESCRIPTOR)
    file = F_FILE(name="login.proto", package="login", syntax="proto3")
    file.dependency.extend(["google/protobuf/struct.proto", "weft/v1/options.proto"])
    card = file.message_type.add(name="Card")
    _field(card, "bank", 1)
    _field(card, "number", 2, secret=True)
    made = file.message_type.add(name="Login")
    _field(made, "user", 1)
    _field(made, "pin", 2, secret=True)
    _field(made, "answers", 3, secret=True, repeated=True)
    _field(made, "card", 4, type_name=".login.Card")
    _field(made, "cards", 5, type_name=".login.Card", repeated=True)
    _field(made, "hidden", 6, type_name=".login.Card", secret=True)
    _field(made, "free", 7, type_name=".google.protobuf.Struct")
    made.field.add(name="token", number=8, type=F.TYPE_BYTES, label=F.LABEL_OPTIONAL)
    pool.Add(file)
    kind: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName("login.Login"))
    return kind


F_FILE = descriptor_pb2.FileDescriptorProto


def _add(pool: descriptor_pool.DescriptorPool, file: Any) -> None:
    for each in file.dependencies:
        _add(pool, each)
    copied = F_FILE()
    file.CopyToProto(copied)
    pool.Add(copied)


def _field(
    message: Any,
    name: str,
    number: int,
    *,
    type_name: str = "",
    secret: bool = False,
    repeated: bool = False,
) -> None:
    made = message.field.add(
        name=name,
        number=number,
        type=F.TYPE_MESSAGE if type_name else F.TYPE_STRING,
        type_name=type_name or None,
        label=F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL,
    )
    if secret:
        made.options.Extensions[options_pb2.hints].secret = True
