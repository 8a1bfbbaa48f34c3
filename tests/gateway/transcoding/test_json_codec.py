from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format, message_factory, struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from weft import rpc
from weft.gateway.transcoding.json_codec import Codec, JsonOptions, native_available
from weft.gateway.transcoding.schema import Schema, SchemaError

F = FieldDescriptor
MESSAGES = 2_000


@pytest.fixture(params=["native", "google"])
def codec(request: pytest.FixtureRequest, kinds: Schema, slow_kinds: Schema) -> Codec:
    return (kinds if request.param == "native" else slow_kinds).codec("kinds.Kinds")


def refused(codec: Codec, body: str | bytes) -> rpc.InvalidArgument:
    with pytest.raises(rpc.InvalidArgument) as caught:
        codec.to_wire(body.encode() if isinstance(body, str) else body)
    return caught.value


def test_the_native_extension_is_here():
    assert native_available()


# Agreement with json_format


class Random:
    """Makes random messages of any type."""

    def __init__(self, seed: int, without: str = "-") -> None:
        self.random = random.Random(seed)
        self.without = without  # fields with this in their name stay unset

    def message(self, message: Message, depth: int = 0) -> None:
        name = message.DESCRIPTOR.full_name
        if name in self.special:
            self.special[name](self, message)
            return
        chance = 0.12 if depth == 0 else 0.02
        for field in message.DESCRIPTOR.fields:
            if self.without in field.name or (depth == 3 and field.message_type):
                continue
            if self.random.random() < chance:
                self.field(message, field, depth)

    def field(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        target = getattr(message, field.name)
        if field.is_repeated and field.message_type and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            for _ in range(self.random.randint(1, 3)):
                if value.message_type:
                    self.message(target[self.scalar(key)], depth + 1)
                else:
                    target[self.scalar(key)] = self.scalar(value)
        elif field.is_repeated:
            for _ in range(self.random.randint(1, 3)):
                if field.message_type:
                    self.message(target.add(), depth + 1)
                else:
                    target.append(self.scalar(field))
        elif field.message_type:
            target.SetInParent()
            self.message(target, depth + 1)
        else:
            setattr(message, field.name, self.scalar(field))

    def scalar(self, field: FieldDescriptor) -> Any:
        if field.enum_type:
            return self.random.choice([0, 1, 2, -1, 77])
        pick, bits = self.random.choice, self.random.getrandbits
        low, high = -(1 << 31), (1 << 31) - 1
        by_type: dict[int, Callable[[], Any]] = {
            F.CPPTYPE_INT32: lambda: pick([0, 1, -1, low, high, bits(31)]),
            F.CPPTYPE_UINT32: lambda: pick([0, 1, (1 << 32) - 1, bits(32)]),
            F.CPPTYPE_INT64: lambda: pick([0, -1, -(1 << 63), (1 << 63) - 1, bits(60)]),
            F.CPPTYPE_UINT64: lambda: pick([0, 1, (1 << 64) - 1, bits(64)]),
            F.CPPTYPE_DOUBLE: lambda: pick(
                [
                    0.0,
                    -0.0,
                    1.5,
                    1e300,
                    5e-324,
                    float("inf"),
                    float("nan"),
                    self.random.gauss(0, 1e6),
                ]
            ),
            F.CPPTYPE_FLOAT: lambda: pick(
                [0.0, 0.1, 3.4e38, float("-inf"), self.random.gauss(0, 9)]
            ),
            F.CPPTYPE_BOOL: lambda: pick([True, False]),
            F.CPPTYPE_STRING: self.bytes if field.type == F.TYPE_BYTES else self.text,
        }
        return by_type[field.cpp_type]()

    def text(self) -> str:
        letters = string.printable + 'äß€😀\u2028\x00\x7f"\\/<>'
        return "".join(self.random.choices(letters, k=self.random.randint(0, 12)))

    def bytes(self) -> bytes:
        return self.random.randbytes(self.random.randint(0, 7))

    def time(self, message: Any) -> None:
        message.seconds = self.random.randint(-62135596800, 253402300799)
        message.nanos = self.random.choice([0, 1, 500_000_000, 123_456_000, 999_999_999])

    def duration(self, message: Any) -> None:
        sign = self.random.choice([1, -1])
        message.seconds = sign * self.random.choice([0, 1, 315576000000])
        message.nanos = sign * self.random.choice([0, 1, 500_000_000, 20_000_000])

    def mask(self, message: Any) -> None:
        message.paths.extend(self.random.choices(["a", "user.display_name", "x_y"], k=2))

    def value(self, message: Any, depth: int = 0) -> None:
        json_format.ParseDict(self.json(depth), message)

    def json(self, depth: int) -> Any:
        leaves: list[Any] = [None, True, 0.5, -3, self.text(), [], {}]
        if depth > 2 or self.random.random() < 0.6:
            return self.random.choice(leaves)
        if self.random.random() < 0.5:
            return [self.json(depth + 1) for _ in range(2)]
        return {self.text(): self.json(depth + 1) for _ in range(2)}

    def struct(self, message: Any) -> None:
        json_format.ParseDict({self.text(): self.json(1) for _ in range(2)}, message)

    def values(self, message: Any) -> None:
        json_format.ParseDict([self.json(1) for _ in range(2)], message)

    def packed(self, message: Any) -> None:
        inner = struct_pb2.Struct()  # of one member: the bytes of a map have no order
        json_format.ParseDict({self.text(): self.text()}, inner)
        message.Pack(inner)

    special: dict[str, Callable[[Random, Any], None]] = {  # noqa: RUF012  read only
        "google.protobuf.Timestamp": time,
        "google.protobuf.Duration": duration,
        "google.protobuf.FieldMask": mask,
        "google.protobuf.Struct": struct,
        "google.protobuf.Value": value,
        "google.protobuf.ListValue": values,
        "google.protobuf.Any": packed,
    }


def canonical(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def test_random_messages_mean_the_same_as_in_json_format(kinds: Schema):
    codec = kinds.codec("kinds.Kinds")
    descriptor = kinds.message("kinds.Kinds")
    kind = message_factory.GetMessageClass(descriptor)
    made = Random(seed=20_261)
    filled: set[str] = set()
    for _ in range(MESSAGES):
        message = kind()
        made.message(message)
        filled.update(field.name for field, _ in message.ListFields())
        wire = message.SerializeToString()
        ours = codec.to_json(wire)
        theirs = json_format.MessageToDict(message, descriptor_pool=descriptor.file.pool)
        # The way out: read by json_format, and member by member but for how numbers are written.
        back = json_format.Parse(ours, kind(), descriptor_pool=descriptor.file.pool)
        assert canonical(back) == canonical(message)
        assert json.loads(ours).keys() == theirs.keys()
        # The way in.
        parsed = kind.FromString(codec.to_wire(json.dumps(theirs).encode()))
        assert canonical(parsed) == canonical(message)
    assert filled == set(descriptor.fields_by_name)


def test_random_damage_is_refused_or_read_alike(kinds: Schema, slow_kinds: Schema):
    fast, slow = kinds.codec("kinds.Kinds"), slow_kinds.codec("kinds.Kinds")
    kind = message_factory.GetMessageClass(kinds.message("kinds.Kinds"))
    made = Random(seed=7, without="bytes")  # json_format takes any text for base64
    chance = made.random
    outcomes = [0, 0]
    for _ in range(300):
        message = kind()
        made.message(message)
        body = bytearray(fast.to_json(message.SerializeToString()))
        at = chance.randrange(len(body))
        body[at : at + chance.randint(0, 2)] = chance.choice(
            [b"", b"{", b"]", b'"', b"x", b"1", b"null", b"-", b"\xff", b"0", b"\\n", b" "]
        )
        try:
            wire = fast.to_wire(bytes(body))
        except rpc.InvalidArgument as error:
            outcomes[0] += bool(error.message)
            continue
        outcomes[1] += 1
        try:
            other = slow.to_wire(bytes(body))
        except rpc.InvalidArgument:
            continue  # json_format refuses two members of one oneof, and a field under both names
        assert canonical(kind.FromString(wire)) == canonical(kind.FromString(other))
    assert min(outcomes) > 20


# What is accepted


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"int64One": "-9223372036854775808"}', {"int64One": "-9223372036854775808"}),
        ('{"int64One": 5, "uint64_one": "7"}', {"int64One": "5", "uint64One": "7"}),
        ('{"int32One": 1e2, "sint32One": "-3"}', {"int32One": 100, "sint32One": -3}),
        ('{"color": "GREEN", "colors": ["RED", 2, -1]}', {"color": "GREEN", "colors": ["RED", "GREEN", "MINUS"]}),
        ('{"color": 99}', {"color": 99}),
        ('{"bytesOne": "_-8"}', {"bytesOne": "/+8="}),
        ('{"doubleOne": "NaN", "floatOne": "-Infinity"}', {"doubleOne": "NaN", "floatOne": "-Infinity"}),
        ('{"child": null, "stringMany": null, "stringOne": null}', {}),
        ('{"value": null}', {"value": None}),
        ('{"child": {}}', {"child": {}}),
        ('{"int32value": null, "int64value": 5}', {"int64value": "5"}),
        ('{"nameByBool": {"true": "a"}}', {"nameByBool": {"true": "a"}}),
        ('{"stringOne": "a", "stringOne": "b"}', {"stringOne": "b"}),
        (' \n{"boolOne":\ttrue} ', {"boolOne": True}),
    ],
)  # fmt: skip
def test_proto_json_is_understood(codec: Codec, body: str, expected: dict[str, Any]):
    assert json.loads(codec.to_json(codec.to_wire(body.encode()))) == expected


def test_fields_without_presence_are_left_out_unless_asked_for(kinds_set: bytes):
    wire = b""
    for native in (True, False):
        plain = Schema(kinds_set, native=native)
        full = Schema(kinds_set, native=native, options=JsonOptions(emit_defaults=True))
        assert plain.codec("kinds.Kinds").to_json(wire) == b"{}"
        shown = json.loads(full.codec("kinds.Kinds").to_json(wire))
        assert shown["int64One"] == "0"
        assert shown["stringMany"] == []
        assert "stringMaybe" not in shown
        assert "child" not in shown
        named = Schema(kinds_set, native=native, options=JsonOptions(proto_names=True))
        assert named.codec("kinds.Kinds").to_json(b"\x18\1") == b'{"int64_one":"1"}'


# What is refused, and what is said


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('{"nope": 1}', "nope"),
        ('{"children": [{}, {}, {"stringOen": ""}]}', "children[2].stringOen"),
        ('{"child": {"childByName": {"a b": {"nope": 1}}}}', 'child.childByName["a b"].nope'),
        ('{"stringOne": 5}', "stringOne"),
        ('{"string_one": true}', "string_one"),
        ('{"int32One": "abc"}', "int32One"),
        ('{"int32One": 1.5}', "int32One"),
        ('{"int32One": 2147483648}', "int32One"),
        ('{"uint32One": -1}', "uint32One"),
        ('{"int32One": true}', "int32One"),
        ('{"int64One": ' + "9" * 5_000 + "}", "int64One"),
        ('{"floatOne": 1e39}', "floatOne"),
        ('{"doubleOne": 1e400}', "doubleOne"),
        ('{"doubleOne": NaN}', "doubleOne"),
        ('{"boolOne": "true"}', "boolOne"),
        ('{"color": "BLUE"}', "color"),
        ('{"colors": ["RED", "BLUE", null]}', "colors[1]"),
        ('{"timestamp": "yesterday"}', "timestamp"),
        ('{"timestamp": 5}', "timestamp"),
        ('{"durationList": ["1s", "1m"]}', "durationList[1]"),
        ('{"children": {}}', "children"),
        ('{"children": [null]}', "children[0]"),
        ('{"childByName": []}', "childByName"),
        ('{"nameByInt32": {"x": "a"}}', 'nameByInt32["x"]'),
        ('{"colorByName": {"a": "BLUE"}}', 'colorByName["a"]'),
        ('{"struct": 5}', "struct"),
        ('{"any": {"@type": "type.googleapis.com/no.Such"}}', "any"),
        ('{"stringOne": "\\ud800"}', "stringOne"),
    ],
)
def test_a_field_that_does_not_fit_is_named(codec: Codec, body: str, path: str):
    error = refused(codec, body)
    assert error.violations[0][0] == path
    assert error.message.startswith(path)
    assert "99999" not in error.message


@pytest.mark.parametrize("body", ['{"bytesOne": "@@"}', '{"child": []}'])
def test_what_only_json_format_accepts_is_refused(kinds: Schema, slow_kinds: Schema, body: str):
    name = next(iter(json.loads(body)))
    assert refused(kinds.codec("kinds.Kinds"), body).violations[0][0] == name
    slow_kinds.codec("kinds.Kinds").to_wire(body.encode())


@pytest.mark.parametrize("body", ['{"either": "", "orNumber": 1}', '{"color": 1, "color": 2}'])
def test_what_only_the_native_codec_accepts(kinds: Schema, body: str):
    assert kinds.codec("kinds.Kinds").to_wire(body.encode())


def test_every_fault_is_told_up_to_ten(codec: Codec):
    error = refused(codec, '{"a": 1, "stringOne": 2, "children": [{"int32One": "x"}]}')
    assert {path for path, _ in error.violations} == {"a", "stringOne", "children[0].int32One"}
    assert "(and 2 more)" in error.message
    many = refused(codec, json.dumps({f"field{n}": n for n in range(1_000)}))
    assert len(many.violations) == 10


def test_a_near_name_is_proposed(codec: Codec):
    assert 'did you mean "stringOne"?' in refused(codec, '{"stringOen": ""}').message


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b'{\n  "stringOne": "a",\n}', "line 3"),
        (b'{"stringOne": "a"} x', "line 1, column 20"),
        (b"{'stringOne': 'a'}", "line 1, column 2"),
        (b'\xef\xbb\xbf{"stringOne": ""}', "line 1, column 1"),
        (b'{"stringOne": "a\nb"}', "line 1, column 17"),
        (b'{"int32One": 01}', "line 1, column 15"),
        (b'{\n"stringOne": "\xff"}', "not UTF-8 at line 2, column 15"),
        (b"\x00", "line 1, column 1"),
        (b"\x1f\x8b\x08", "not UTF-8 at line 1, column 2"),
    ],
)
def test_malformed_json_is_told_with_line_and_column(codec: Codec, body: bytes, place: str):
    assert place in refused(codec, body).message


@pytest.mark.parametrize("body", ["[]", '"x"', "5", "null", "true"])
def test_a_body_must_be_an_object(codec: Codec, body: str):
    assert "expects an object (kinds.Kinds)" in refused(codec, body).message


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000,
        '{"child":' * 100_000,
        '{"children":[' * 100_000,
        '{"value":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"nope":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
        '{"stringOne": "\\\\", "value": ' + '["\\"", ' * 100_000,
    ],
)
def test_a_hundred_thousand_levels_are_refused(codec: Codec, body: str):
    assert "nested deeper than 200 levels" in refused(codec, body).message


def test_brackets_in_strings_are_not_levels(codec: Codec):
    body = json.dumps({"stringOne": '[{"\\' * 1_000, "stringMany": ["[" * 300, '\\"[']}).encode()
    assert codec.to_json(codec.to_wire(body))
    deep = json.dumps({"children": [{"children": [{}] * 500}] * 3}).encode()
    assert codec.to_wire(deep)


def test_a_large_bad_body_is_explained(kinds: Schema):
    children = [{"stringOne": "a", "int32Many": [1, 2, 3]} for _ in range(2_000)]
    children[1_777]["int32Many"] = [1, "x"]
    error = refused(kinds.codec("kinds.Kinds"), json.dumps({"children": children}))
    assert error.violations[0][0] == "children[1777].int32Many[1]"


@pytest.mark.parametrize("wire", [b"\xff", b"\x0a", b"\x52\x05a", b"\x4a\x02\xff\xfe", b"\x1a" * 9])
def test_a_reply_that_is_not_its_message_is_an_internal_error(codec: Codec, wire: bytes):
    with pytest.raises(rpc.Internal, match=r"not a valid kinds\.Kinds"):
        codec.to_json(wire)


def test_a_reply_with_an_impossible_time_is_an_internal_error(codec: Codec, kinds: Schema):
    message = message_factory.GetMessageClass(kinds.message("kinds.Kinds"))()
    message.timestamp.seconds = 1 << 62
    with pytest.raises(rpc.Internal):
        codec.to_json(message.SerializeToString())


# Descriptor sets


def test_a_set_in_any_order_and_without_wellknown_files_is_read(kinds_set: bytes):
    from google.protobuf import descriptor_pb2

    given = descriptor_pb2.FileDescriptorSet.FromString(kinds_set)
    kinds_file = next(file for file in given.file if file.name == "kinds.proto")
    other = descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["kinds.proto"])
    lean = descriptor_pb2.FileDescriptorSet(file=[other, kinds_file])
    codec = Schema(lean.SerializeToString()).codec("kinds.Kinds")
    assert codec.to_wire(b'{"timestamp": "1970-01-01T00:00:01Z"}')


@pytest.mark.parametrize("serialized", [b"\xff\xff", b"\x0a\x03\x0a\x05x"])
def test_a_damaged_set_is_an_error(serialized: bytes):
    with pytest.raises(SchemaError, match="damaged"):
        Schema(serialized)


def test_an_incomplete_set_is_an_error():
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name="a.proto", dependency=["gone.proto"])
    lacking = descriptor_pb2.FileDescriptorSet(file=[file])
    with pytest.raises(SchemaError, match=r"'gone\.proto'"):
        Schema(lacking.SerializeToString())
    message = file.message_type.add(name="M")
    message.field.add(name="f", number=1, type=F.TYPE_MESSAGE, type_name=".no.Such", label=1)
    del file.dependency[:]
    with pytest.raises(SchemaError, match="not valid"):
        Schema(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())


def test_an_unknown_message_is_a_lookup_error(kinds: Schema):
    with pytest.raises(LookupError):
        kinds.codec("kinds.Nope")
