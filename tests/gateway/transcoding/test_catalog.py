from __future__ import annotations

from datetime import timedelta

import pytest
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from weft.gateway.transcoding.catalog import Catalog, Contract, Idempotency
from weft.support.v1 import research_pb2, supervisor_pb2
from weft.v1 import options_pb2


def file_set(*modules) -> bytes:
    """The descriptor set of generated modules, as an agent sends it."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file) -> None:
        for dependency in file.dependencies:
            add(dependency)
        if file.name not in found:
            found[file.name] = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(found[file.name])

    for module in modules:
        add(module.DESCRIPTOR)
    return descriptor_pb2.FileDescriptorSet(file=found.values()).SerializeToString()


@pytest.fixture(scope="module")
def research_set() -> bytes:
    return file_set(research_pb2)


@pytest.fixture(scope="module")
def research(research_set: bytes) -> Contract:
    return Contract(agent="support-research", descriptor_set=research_set)


def little(field: str, *, template: str = "/v1/little/{id}", **skill: object) -> bytes:
    """A set with one service and one message, whose only field is named by the caller."""
    file = descriptor_pb2.FileDescriptorProto(name="little.proto", package="l", syntax="proto3")
    message = file.message_type.add(name="Thing")
    message.field.add(name=field, number=1, type=9, label=1)
    method = file.service.add(name="LittleService").method.add(
        name="Do", input_type=".l.Thing", output_type=".l.Thing"
    )
    method.options.Extensions[annotations_pb2.http].get = template
    method.options.Extensions[options_pb2.skill].MergeFrom(options_pb2.SkillOptions(**skill))
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def test_methods_carry_what_their_contract_says(research: Contract):
    catalog = Catalog([research])
    assert catalog.problems == ()
    search = catalog.methods["/weft.support.v1.ResearchService/Search"]
    assert search.full_name == "weft.support.v1.ResearchService/Search"
    assert search.agent.name == "support-research"
    assert search.agent.tier == "essential"
    assert "knowledge" in search.agent.tags
    assert search.idempotency is Idempotency.NO_SIDE_EFFECTS
    assert search.idempotency.repeatable
    assert search.skill.default_timeout == timedelta(seconds=5)
    assert search.skill.examples == ('{"query": "top up failed", "limit": 3}',)
    assert search.input.full_name == "weft.support.v1.SearchRequest"
    assert not search.server_streaming
    imports = catalog.methods["/weft.support.v1.ResearchService/ImportArticles"]
    assert imports.client_streaming
    assert imports.idempotency is Idempotency.IDEMPOTENT
    assert imports.bindings == ()


def test_routes_lead_to_methods(research: Contract):
    supervisor = Contract(
        agent="support-supervisor",
        services=("weft.support.v1.SupervisorService",),
        descriptor_set=file_set(supervisor_pb2),
    )
    catalog = Catalog([research, supervisor])
    match = catalog.router.match("GET", "/v1/support/articles/card-arrival")
    assert match.target.method.name == "GetArticle"
    request = match.target.binding.request(match.values, "", b"")
    assert research_pb2.GetArticleRequest.FromString(request).article_id == "card-arrival"
    watch = catalog.router.match("POST", "/v1/support:watch").target.method
    assert watch.server_streaming
    reply = research_pb2.GetArticleResponse(article={"title": "Card"})
    assert match.target.binding.response(reply.SerializeToString()) == b'{"title":"Card"}'


def test_two_versions_of_one_file_live_side_by_side():
    old = Contract(agent="a", services=("l.LittleService",), descriptor_set=little("id"))
    new = Contract(
        agent="b",
        services=("l.LittleService",),
        descriptor_set=little("name", template="/v2/{name}"),
    )
    for order in ((old, new), (new, old)):
        catalog = Catalog(order)
        method = catalog.methods["/l.LittleService/Do"]
        assert method.agent.name == order[0].agent
        field = "id" if order[0] is old else "name"
        assert method.request_codec.to_wire(f'{{"{field}": "x"}}'.encode()) == b"\n\1x"
        assert [(p.agent, p.text) for p in catalog.problems] == [
            (order[1].agent, f"is served by {order[0].agent} already")
        ]


def test_faults_of_one_contract_leave_the_others_alone(research: Contract):
    bad = [
        Contract(agent="damaged", descriptor_set=b"\xff"),
        Contract(agent="lacking", services=("l.Nope",), descriptor_set=little("id")),
        Contract(agent="misrouted", services=("l.LittleService",), descriptor_set=little("name")),
    ]
    catalog = Catalog([*bad, research])
    assert {p.agent: p.text for p in catalog.problems} == {
        "damaged": "the descriptor set is damaged",
        "lacking": "the descriptor set does not define this service",
        "misrouted": "HTTP rule: path variable 'id': l.Thing has no field 'id'",
    }
    # The method with the bad rule is served by its own path all the same.
    assert catalog.methods["/l.LittleService/Do"].bindings == ()
    assert "/weft.support.v1.ResearchService/Search" in catalog.methods


def test_a_route_that_is_taken_is_a_problem():
    first = Contract(agent="a", services=("l.LittleService",), descriptor_set=little("id"))
    file = descriptor_pb2.FileDescriptorSet.FromString(little("id", template="/v1/little/{id=*}"))
    file.file[0].service[0].name = "OtherService"
    second = Contract(
        agent="b", services=("l.OtherService",), descriptor_set=file.SerializeToString()
    )
    catalog = Catalog([first, second])
    assert [(p.agent, p.subject, p.text) for p in catalog.problems] == [
        ("b", "l.OtherService/Do", "GET /v1/little/{id=*} is served by l.LittleService/Do of a")
    ]


def test_without_services_those_that_name_the_agent_are_served(research_set: bytes):
    assert Catalog([Contract(agent="nobody", descriptor_set=research_set)]).methods == {}


def test_an_impossible_timeout_is_a_problem():
    contract = Contract(
        agent="a",
        services=("l.LittleService",),
        descriptor_set=little("id", default_timeout=timedelta(0)),
    )
    catalog = Catalog([contract])
    assert catalog.methods["/l.LittleService/Do"].skill.default_timeout == timedelta(seconds=30)
    assert "default_timeout" in catalog.problems[0].text


def test_options_are_read_by_their_number():
    """A set made where weft/v1/options.proto had other field names, or none at all."""
    wire = little("id", description="does", required_scopes=["a.b"])
    assert b"options.proto" not in wire
    contract = Contract(agent="a", services=("l.LittleService",), descriptor_set=wire)
    skill = Catalog([contract]).methods["/l.LittleService/Do"].skill
    assert skill.description == "does"
    assert skill.required_scopes == ("a.b",)


def test_what_did_not_change_is_taken_over(research: Contract):
    little_one = Contract(agent="a", services=("l.LittleService",), descriptor_set=little("id"))
    before = Catalog([research])
    after = Catalog([little_one, research], previous=before)
    path = "/weft.support.v1.ResearchService/Search"
    assert after.methods[path] is before.methods[path]
    moved = Contract(
        agent="other", services=research.services, descriptor_set=research.descriptor_set
    )
    again = Catalog([moved, research], previous=after)
    assert again.methods[path].schema is before.methods[path].schema
