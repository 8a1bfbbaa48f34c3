"""What becomes of contracts on their way to Envoy's transcoder."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from tests.descriptors import descriptor_set

import weft.v1
from weft.echo.v1 import echo_pb2
from weft.registry.xds.edge import paths
from weft.registry.xds.edge.transcoder import pruned
from weft.support.v1 import triage_pb2

CONTRACTS = [
    module.DESCRIPTOR
    for module in (
        echo_pb2,
        triage_pb2,
        *(
            importlib.import_module(f"weft.v1.{each.name}")
            for each in pkgutil.iter_modules(weft.v1.__path__)
            if each.name.endswith("_pb2")
        ),
    )
    if module.DESCRIPTOR.services_by_name
]


@pytest.mark.parametrize("file", CONTRACTS, ids=lambda file: file.name)
def test_what_is_left_of_a_contract_builds(file):
    whole = descriptor_set(file)
    services = [each.full_name for each in file.services_by_name.values()]
    kept, _ = pruned(whole, services)
    pool = descriptor_pool.DescriptorPool()
    for each in descriptor_pb2.FileDescriptorSet.FromString(kept).file:
        pool.Add(each)
    for name in services:
        assert pool.FindServiceByName(name).methods


def test_what_is_left_is_small():
    whole = descriptor_set(echo_pb2.DESCRIPTOR)
    kept, _ = pruned(whole, ["weft.echo.v1.EchoService"])
    assert len(kept) < len(whole) / 3


def test_a_route_that_the_transcoder_would_refuse_is_left_to_a_gateway():
    from weft.v1 import orchestrator_pb2

    file = orchestrator_pb2.DESCRIPTOR
    name = "weft.v1.OrchestratorService"
    rule = file.services_by_name["OrchestratorService"].methods_by_name["GetRun"].GetOptions()
    assert rule.Extensions[annotations_pb2.http].response_body
    _, bindings = pruned(descriptor_set(file), [name])
    served = {path for path, _, _ in bindings}
    assert f"/{name}/GetRun" not in served
    assert served


@pytest.mark.parametrize(
    ("template", "fits", "not_this"),
    [
        ("/v1/echo:say", ["/v1/echo:say"], ["/v1/echo", "/v1/echo:says", "/v1xecho:say"]),
        ("/v1/echo/{text}", ["/v1/echo/a", "/v1/echo/a%2Fb"], ["/v1/echo/", "/v1/echo/a/b"]),
        ("/v1/{name=places/*}:open", ["/v1/places/x:open"], ["/v1/places/x", "/v1/x:open"]),
        ("/v1/{name=any/**}", ["/v1/any", "/v1/any/a/b"], ["/v1/anything"]),
    ],
)
def test_templates_as_patterns(template, fits, not_this):
    import re

    pattern = re.compile(paths.pattern(template))
    assert all(pattern.fullmatch(each) for each in fits)
    assert not any(pattern.fullmatch(each) for each in not_this)
