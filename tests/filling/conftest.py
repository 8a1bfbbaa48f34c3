"""Messages with every feature of proto."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

HERE = Path(__file__).parent
# Files are found in the pool once their modules are imported.
_NEEDED = (
    *("any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"),
    *("google.type.money", "google.api.field_behavior", "weft.v1.options"),
)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The message classes of lab.proto, by name."""
    made = tmp_path_factory.mktemp("lab") / "lab.binpb"
    common = importlib.metadata.distribution("googleapis-common-protos").locate_file("")
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    includes = (HERE, HERE.parents[1] / "proto", common, builtin)
    arguments = [*(f"-I{each}" for each in includes), f"--descriptor_set_out={made}", "lab.proto"]
    assert protoc.main(["protoc", *arguments]) == 0
    for name in _NEEDED:
        importlib.import_module(f"{name if '.' in name else f'google.protobuf.{name}'}_pb2")
    pool = descriptor_pool.Default()
    found = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file[0]
    pool.AddSerializedFile(found.SerializeToString())
    return SimpleNamespace(
        **{
            each.name: message_factory.GetMessageClass(
                pool.FindMessageTypeByName(f"test.lab.v1.{each.name}")
            )
            for each in found.message_type
        }
    )
