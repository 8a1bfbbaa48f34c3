"""JSON to wire form and back for message types known only at run time: the one place that converts.

Two codecs with one meaning. `NativeCodec` is protobuf-py with its Rust extension; `GoogleCodec` is
google.protobuf.json_format, 5 to 13 times slower, for machines that have no wheel of the extension
(without it protobuf-py is 100 times slower, so it is never used so). Both refuse what ProtoJSON does not
allow; of a key that stands twice, the last counts.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import orjson
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from protobuf import DescMessage, Registry

from weft import rpc
from weft.gateway.transcoding.fields import SPECIAL_JSON
from weft.gateway.transcoding.json_depth import too_deep

# What the two libraries raise for a document that does not fit; json_format lets slip the last two.
MISFIT = (
    *(ValueError, TypeError, OverflowError, RecursionError, json_format.ParseError),
    *(LookupError, AttributeError),
)

_log = logging.getLogger("weft.gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonOptions:
    """How replies are written."""

    emit_defaults: bool = False
    """Also fields without presence that hold their default."""
    proto_names: bool = False
    """Field names as in the .proto, not in lowerCamelCase."""


class Codec(Protocol):
    """JSON to wire form and back for one message type."""

    def parse(self, body: bytes) -> bytes:
        """JSON to wire form; raises one of MISFIT. For a body from outside use `to_wire`."""

    def to_wire(self, body: bytes) -> bytes:
        """JSON to wire form.

        Raises:
            rpc.InvalidArgument: names each field that does not fit, or line and column.
        """

    def to_json(self, wire: bytes) -> bytes:
        """Wire form to JSON.

        Raises:
            rpc.Internal: the bytes are not such a message, or it has no JSON form.
        """


class Explain(Protocol):
    """Says what is wrong with a body that a codec refused."""

    def __call__(self, body: bytes, failed: Exception) -> rpc.InvalidArgument:
        """The error to raise."""


def native_available() -> bool:
    """Whether protobuf-py runs on its Rust extension here. Checked once, at start-up."""
    if importlib.util.find_spec("protobuf_ext") is not None:
        return True
    _log.warning("protobuf-py has no native extension here; JSON is 5 to 13 times slower")
    return False


class NativeCodec:
    """protobuf-py on its Rust extension."""

    __slots__ = ("_explain", "_name", "_options", "_registry", "_type")

    def __init__(
        self,
        message: DescMessage,
        explain: Explain,
        *,
        registry: Registry | None = None,
        options: JsonOptions | None = None,
    ) -> None:
        self._type = message.type
        self._name = message.type_name
        self._registry = registry
        self._explain = explain
        self._options = options or JsonOptions()

    def parse(self, body: bytes) -> bytes:
        """See Codec."""
        if too_deep(body):
            raise RecursionError("nested too deep")
        return self._type.from_json(body, registry=self._registry).to_binary()

    def to_wire(self, body: bytes) -> bytes:
        """See Codec."""
        try:
            return self.parse(body)
        except MISFIT as failed:
            raise self._explain(body, failed) from None

    def to_json(self, wire: bytes) -> bytes:
        """See Codec."""
        options = self._options
        try:
            text = self._type.from_binary(wire).to_json(
                registry=self._registry,
                always_emit_implicit=options.emit_defaults,
                use_proto_field_name=options.proto_names,
            )
        except MISFIT as failed:
            _bad_reply(self._name, failed)
        return text.encode()


class GoogleCodec:
    """google.protobuf.json_format."""

    __slots__ = ("_explain", "_name", "_options", "_pool", "_type")

    def __init__(
        self,
        message: Descriptor,
        explain: Explain,
        *,
        pool: DescriptorPool,
        options: JsonOptions | None = None,
    ) -> None:
        self._type = message_factory.GetMessageClass(message)
        self._name = message.full_name
        self._pool = pool
        self._explain = explain
        self._options = options or JsonOptions()

    def parse(self, body: bytes) -> bytes:
        """See Codec."""
        if too_deep(body):
            raise RecursionError("nested too deep")
        value = json.loads(body.decode(), parse_constant=_refuse_constant)
        if not isinstance(value, dict) and self._name not in SPECIAL_JSON:
            raise TypeError("not an object")
        message = json_format.ParseDict(value, self._type(), descriptor_pool=self._pool)
        return message.SerializeToString()

    def to_wire(self, body: bytes) -> bytes:
        """See Codec."""
        try:
            return self.parse(body)
        except MISFIT as failed:
            raise self._explain(body, failed) from None

    def to_json(self, wire: bytes) -> bytes:
        """See Codec."""
        try:
            value: Any = json_format.MessageToDict(
                self._type.FromString(wire),
                always_print_fields_with_no_presence=self._options.emit_defaults,
                preserving_proto_field_name=self._options.proto_names,
                descriptor_pool=self._pool,
            )
        except (*MISFIT, DecodeError, json_format.SerializeToJsonError) as failed:
            _bad_reply(self._name, failed)
        return orjson.dumps(value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _bad_reply(name: str, failed: Exception) -> NoReturn:
    # What the library says may hold values of the message: neither told nor logged.
    _log.error("a reply is not a valid %s (%s)", name, type(failed).__name__)
    raise rpc.Internal(f"The reply is not a valid {name}.", reason="BAD_REPLY") from None
