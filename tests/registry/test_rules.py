"""The rules for what a process may register, field by field."""

from __future__ import annotations

from datetime import timedelta

import pytest

from weft import registry
from weft.registry import validate
from weft.v1 import agent_pb2, registry_pb2

GOOD = {
    "instance_id": "triage-1",
    "agent": "support-triage",
    "address": "127.0.0.1:50051",
    "services": [agent_pb2.ServiceRef(name="a.B", descriptor_digest="0" * 64)],
    "version": "1.4.0-rc.1+build.5",
    "max_concurrency": 1_000_000,
    "labels": {"team": "support"},
    "capabilities": ["lang:de"],
}


def violations(*instances):
    return list(validate.registration(registry_pb2.Registration(instances=instances)))


def test_a_good_instance_has_no_violation():
    assert violations(agent_pb2.Instance(**GOOD)) == []


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "[::1]:50051", "10.1.2.3:65535", "[2001:db8::7]:80"]
)
def test_addresses_of_both_families_are_taken(address):
    assert violations(agent_pb2.Instance(**GOOD | {"address": address})) == []


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"instance_id": ""}, "instance_id"),
        ({"instance_id": "Upper"}, "instance_id"),
        ({"instance_id": "x" * 65}, "instance_id"),
        ({"agent": "9lives"}, "agent"),
        ({"address": "localhost:80"}, "address"),
        ({"address": "0.0.0.0:80"}, "address"),
        ({"address": "127.0.0.1"}, "address"),
        ({"address": "127.0.0.1:0"}, "address"),
        ({"address": "127.0.0.1:65536"}, "address"),
        ({"address": f"127.0.0.1:{'1' * 5_000}"}, "address"),
        ({"address": "127.0.0.1:٣"}, "address"),
        ({"address": "::1:80"}, "address"),
        ({"address": "[fe80::1%eth0]:80"}, "address"),
        ({"services": []}, "services"),
        ({"services": [*GOOD["services"], *GOOD["services"]]}, "services[1].name"),
        (
            {"services": [agent_pb2.ServiceRef(name="a.B", descriptor_digest="x")]},
            "services[0].descriptor_digest",
        ),
        (
            {"services": [agent_pb2.ServiceRef(name="a b", descriptor_digest="0" * 64)]},
            "services[0].name",
        ),
        ({"version": "1.0"}, "version"),
        ({"version": ""}, "version"),
        ({"version": "1.\u0663.0"}, "version"),
        ({"version": "1.0.0-0\u0663a"}, "version"),
        ({"version": f"{'1' * 5_000}.0.0"}, "version"),
        ({"zone": "z" * 101}, "zone"),
        ({"labels": {str(n): "" for n in range(33)}}, "labels"),
        ({"labels": {"k" * 101: "v"}}, 'labels["' + "k" * 100 + '"]'),
        ({"capabilities": ["x"] * 65}, "capabilities"),
        ({"capabilities": [""]}, "capabilities[0]"),
        ({"capabilities": ["a\0b"]}, "capabilities[0]"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_concurrency": 1_000_001}, "max_concurrency"),
        ({"state": agent_pb2.INSTANCE_STATE_DRAINING}, "state"),
        ({"state_reason": "why"}, "state_reason"),
        ({"load": agent_pb2.Load()}, "load"),
    ],
)
def test_a_bad_field_is_named_by_its_path(fields, path):
    found = violations(agent_pb2.Instance(**GOOD | fields))
    assert [where for where, _ in found] == [f"registration.instances[0].{path}"]


def test_a_registration_names_each_instance_and_place_once():
    found = violations(agent_pb2.Instance(**GOOD), agent_pb2.Instance(**GOOD))
    assert [where for where, _ in found] == [
        "registration.instances[1].instance_id",
        "registration.instances[1].address",
    ]
    assert [where for where, _ in violations()] == ["registration.instances"]


def test_terms_leave_room_for_three_heartbeats():
    with pytest.raises(ValueError, match="third"):
        registry.Terms(ttl=timedelta(seconds=2), heartbeat_interval=timedelta(seconds=1))
