"""Addresses of several replicas, as settings name them and as gRPC dials them."""

from __future__ import annotations

import json

import pytest

from weft import rpc


def test_one_address_is_left_to_grpc():
    assert rpc.Addresses("registry.prod:7070").target == "registry.prod:7070"
    assert rpc.Addresses(" [::1]:7070 ").target == "[::1]:7070"


def test_several_addresses_are_a_list_in_any_order():
    found = {rpc.Addresses("10.0.0.1:1, 10.0.0.2:2,").target for _ in range(64)}
    assert found == {"ipv4:10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.2:2,10.0.0.1:1"}


def test_names_among_several_are_resolved_and_what_is_nowhere_is_left_out():
    found = rpc.Addresses("localhost:1,nowhere.invalid:2").target
    assert found in {"ipv4:127.0.0.1:1", "ipv6:[::1]:1"}


def test_both_families_go_into_one_list():
    found = rpc.Addresses("10.0.0.1:1,[2001:db8::1]:2").target
    assert found.startswith("ipv6:")
    assert set(found.removeprefix("ipv6:").split(",")) == {
        "[::ffff:10.0.0.1]:1",
        "[2001:db8::1]:2",
    }


def test_the_next_one_comes_after_each_failure_and_all_have_their_turn():
    places = rpc.Addresses("a:1,b:2,c:3")
    seen = []
    for _ in range(3):
        seen.append(places.current)
        places.advance()
    assert sorted(seen) == ["a:1", "b:2", "c:3"]
    assert places.current == seen[0]


def test_none_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        rpc.Addresses(" , ")


def test_the_bootstrap_names_all_of_them():
    (server,) = json.loads(rpc.xds_bootstrap("10.0.0.1:1,10.0.0.2:2"))["xds_servers"]
    assert server["server_uri"].startswith("ipv4:10.0.0.")
    assert len(server["server_uri"].split(",")) == 2
