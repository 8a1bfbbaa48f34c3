"""Parts of a message as the request of a skill, and answers of a skill as parts.

In: one part with data (ProtoJSON; also text of the type application/json) or raw bytes (protobuf); text goes to the
request's text field. Out: what `acceptedOutputModes` asks for; by default ProtoJSON, and to who wrote text also text. A
skill that answers with google.api.HttpBody says itself what its bytes are.

A skill that is written for A2A takes lf.a2a.v1.Message, and is given the caller's as it is; it answers with
lf.a2a.v1.Artifact, or with lf.a2a.v1.SendMessageResponse, of which it fills in `message`, or artifacts of `task`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError

from weft import rpc
from weft.gateway.doors.a2a.protocol import EXTENSION, ContentTypeNotSupported, Json
from weft.gateway.doors.a2a.skills import (
    ARTIFACT,
    JSON,
    PROTOBUF,
    PROTOBUF_TYPES,
    SEND_MESSAGE_RESPONSE,
    TEXT,
    Skill,
)

_KINDS = ("text", "raw", "url", "data")
_MOST_PARTS = 100
_HTTP_BODY = HttpBody.DESCRIPTOR.full_name
OWN_FORM = frozenset({_HTTP_BODY, ARTIFACT, SEND_MESSAGE_RESPONSE})
"""Answers that say themselves what they are."""
_ANSWER = "answer"  # id of the artifact that typed answers are


@dataclass(slots=True)
class Given:
    """What the parts of a message hold."""

    json: bytes | None = None
    wire: bytes | None = None
    texts: list[str] = field(default_factory=list)
    message: Json = field(default_factory=dict)
    """All of it, for skills that take that."""
    refused: rpc.Error | None = None
    """Why no other skill takes it."""

    @property
    def only_text(self) -> bool:
        """Whether there is nothing else."""
        return self.json is None and self.wire is None

    def request(self, skill: Skill) -> bytes:
        """The request in wire form.

        Raises:
            ContentTypeNotSupported: the skill takes no text.
            rpc.InvalidArgument: it is not such a message.
        """
        codec = skill.method.request_codec
        if skill.takes_message:
            return codec.to_wire(orjson.dumps(self.message))
        if self.refused is not None:
            raise self.refused
        if self.texts and not skill.text_in:
            raise ContentTypeNotSupported(f"{skill.id} takes no text; send a part with data.")
        if self.wire is not None:
            if self.texts:
                raise rpc.InvalidArgument("has text beside a whole message", field="message.parts")
            _check(skill, self.wire)
            return self.wire
        if not self.texts:
            return codec.to_wire(self.json or b"{}")
        body: Any = orjson.loads(self.json) if self.json is not None else {}
        if not isinstance(body, dict):
            raise rpc.InvalidArgument("has text beside a whole message", field="message.parts")
        body.setdefault(skill.text_in, "\n".join(self.texts))
        return codec.to_wire(orjson.dumps(body))


def read(message: Json) -> Given:
    """What the parts of a message hold.

    Raises:
        rpc.InvalidArgument: they are malformed.
    """
    parts = message.get("parts")
    if not isinstance(parts, list) or not 1 <= len(parts) <= _MOST_PARTS:
        raise rpc.InvalidArgument(f"must be 1 to {_MOST_PARTS} parts", field="message.parts")
    given = Given(message=message)
    for number, part in enumerate(parts):
        path = f"message.parts[{number}]"
        kinds = [kind for kind in _KINDS if isinstance(part, dict) and kind in part]
        if len(kinds) != 1:
            raise rpc.InvalidArgument("must have one of text, raw, url and data", field=path)
        media = part.get("mediaType") or ""
        if not isinstance(media, str):
            raise rpc.InvalidArgument("must be a string", field=f"{path}.mediaType")
        try:
            _take(given, kinds[0], part[kinds[0]], media.partition(";")[0].strip().lower(), path)
        except ContentTypeNotSupported as refused:
            given.refused = given.refused or refused
    return given


def _take(given: Given, kind: str, value: Any, media: str, path: str) -> None:
    if kind == "url":
        raise ContentTypeNotSupported("Weft fetches nothing: send what is at the URL.")
    whole = kind != "text" or media == JSON
    if whole and not given.only_text:
        raise rpc.InvalidArgument("must not hold two whole messages", field="message.parts")
    if kind == "data":
        if media not in {"", JSON}:
            raise ContentTypeNotSupported(f"{path}: data is {JSON}, not {media}.")
        given.json = orjson.dumps(value)
        return
    if not isinstance(value, str):
        raise rpc.InvalidArgument("must be a string", field=f"{path}.{kind}")
    if kind == "raw":
        if media not in PROTOBUF_TYPES:
            raise ContentTypeNotSupported(f"{path}: raw bytes are {PROTOBUF}, not {media!r}.")
        given.wire = _bytes(value, f"{path}.raw")
    elif media == JSON:
        given.json = value.encode()
    elif media in {"", TEXT}:
        given.texts.append(value)
    else:
        raise ContentTypeNotSupported(f"{path}: text is {TEXT} or {JSON}, not {media}.")


def _bytes(value: str, path: str) -> bytes:
    try:
        return base64.b64decode(value.translate(_STANDARD) + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise rpc.InvalidArgument("is not base64", field=path) from None


# ProtoJSON takes both alphabets, with and without padding.
_STANDARD = str.maketrans({"-": "+", "_": "/", "=": None})


def _check(skill: Skill, wire: bytes) -> None:
    try:
        skill.method.request_codec.to_json(wire)
    except rpc.Internal:
        name = skill.method.input.full_name
        raise rpc.InvalidArgument(f"is no {name}", field="message.parts") from None


@dataclass(frozen=True, slots=True)
class Chunk:
    """An artifact, or a part of one that is made little by little."""

    id: str
    head: bytes
    """Its JSON without parts, open at the end."""
    parts: list[bytes]

    def render(self, parts: Iterable[bytes]) -> bytes:
        """As JSON, with these parts."""
        return self.head + b'"parts":[' + b",".join(parts) + b"]}"


class Shape:
    """How answers are shown to one caller.

    Args:
        skill: which answers.
        accepted: media types, `acceptedOutputModes`; none: any.
        text: whether it wrote text itself.

    Raises:
        ContentTypeNotSupported: the skill gives none of these types.
    """

    __slots__ = ("_codec", "_head", "_json", "_kind", "_raw", "_text")

    def __init__(self, skill: Skill, accepted: Iterable[str], *, text: bool) -> None:
        wanted = [each.partition(";")[0].strip().lower() for each in accepted]
        self._codec = skill.method.response_codec
        self._kind = skill.method.output.full_name
        named = {"artifactId": _ANSWER, "name": skill.method.name, "extensions": [EXTENSION]}
        self._head = orjson.dumps(named)[:-1] + b","
        self._json = not wanted or _fits(JSON, wanted)
        self._raw = any(each in PROTOBUF_TYPES for each in wanted)
        shown = text if not wanted else _fits(TEXT, wanted)
        self._text = skill.text_out if shown else ""
        own = self._kind in OWN_FORM
        if not (own or self._json or self._raw or self._text):
            raise ContentTypeNotSupported(f"{skill.id} gives {', '.join(skill.output_modes)}.")

    @classmethod
    def kept(cls, skill: Skill | None, accepted: Iterable[str], *, text: bool) -> Shape:
        """How answers of a task are shown, whatever its skill gives by now. None: it is gone."""
        if skill is not None:
            try:
                return cls(skill, accepted, text=text)
            except ContentTypeNotSupported:
                return cls(skill, (), text=text)
        return Unread()

    def message(self, reply: bytes) -> Json | None:
        """The Message that an answer is; None: it is a task's."""
        if self._kind != SEND_MESSAGE_RESPONSE:
            return None
        found: Json | None = orjson.loads(self._codec.to_json(reply)).get("message")
        return found

    def chunks(self, reply: bytes) -> list[Chunk]:
        """An answer as artifacts.

        Raises:
            rpc.Internal: it is not what the contract says.
        """
        if self._kind == ARTIFACT:
            return [_artifact(orjson.loads(self._codec.to_json(reply)))]
        if self._kind == SEND_MESSAGE_RESPONSE:
            answer: Json = orjson.loads(self._codec.to_json(reply))
            if "message" in answer:
                return [_artifact({"parts": answer["message"].get("parts", [])})]
            return [_artifact(each) for each in answer.get("task", {}).get("artifacts", ())]
        return [Chunk(_ANSWER, self._head, self.parts(reply))]

    def parts(self, reply: bytes) -> list[bytes]:
        """A typed answer as parts, each as JSON.

        Raises:
            rpc.Internal: it is not what the contract says.
        """
        if self._kind == _HTTP_BODY:
            return [_file(reply)]
        parts: list[bytes] = []
        json = self._codec.to_json(reply)
        if self._text and (text := orjson.loads(json).get(self._text)):
            parts.append(b'{"text":' + orjson.dumps(text) + b',"mediaType":"text/plain"}')
        if self._json or not (parts or self._raw):
            parts.append(b'{"data":' + json + b',"mediaType":"application/json"}')
        if self._raw:
            raw = base64.b64encode(reply)
            parts.append(b'{"raw":"' + raw + b'","mediaType":"application/x-protobuf"}')
        return parts


class Unread(Shape):
    """How answers are shown whose type nobody knows any more."""

    __slots__ = ()

    def __init__(self) -> None:
        self._kind = ""
        self._head = orjson.dumps({"artifactId": _ANSWER})[:-1] + b","

    def parts(self, reply: bytes) -> list[bytes]:
        """The bytes of an answer."""
        raw = base64.b64encode(reply)
        return [b'{"raw":"' + raw + b'","mediaType":"application/x-protobuf"}']


def _artifact(artifact: Json) -> Chunk:
    parts = [orjson.dumps(each) for each in artifact.pop("parts", ())]
    head = {"artifactId": _ANSWER} | artifact
    return Chunk(head["artifactId"], orjson.dumps(head)[:-1] + b",", parts)


def _file(reply: bytes) -> bytes:
    """What a google.api.HttpBody holds: text as text, all else as bytes."""
    try:
        body = HttpBody.FromString(reply)
    except DecodeError:
        raise rpc.Internal("The reply is not a valid HttpBody.", reason="BAD_REPLY") from None
    media = body.content_type or "application/octet-stream"
    if media.startswith("text/"):
        with contextlib.suppress(UnicodeDecodeError):
            return orjson.dumps({"text": body.data.decode(), "mediaType": media})
    return orjson.dumps({"raw": base64.b64encode(body.data).decode(), "mediaType": media})


def _fits(media: str, wanted: list[str]) -> bool:
    return any(each in {media, "*/*", media.partition("/")[0] + "/*"} for each in wanted)
