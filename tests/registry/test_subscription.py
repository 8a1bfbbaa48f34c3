"""One type on one ADS stream: the transport protocol, without a network."""

from __future__ import annotations

from google.protobuf import any_pb2

from weft.registry.xds import resources
from weft.registry.xds.snapshot import sink_address
from weft.registry.xds.subscription import Subscription
from weft.v1 import traffic_pb2
from weft.xds.v1 import discovery_pb2, resources_pb2


class Client:
    """Speaks like a gRPC client, over a dictionary of resources."""

    def __init__(self, type_url: str) -> None:
        self.type_url = type_url
        self.world: dict[str, bytes] = {}
        self.subscription = Subscription(type_url)

    def request(self, *names: str, nonce: str = "", reject: str = ""):
        request = discovery_pb2.DiscoveryRequest(
            type_url=self.type_url, resource_names=names, response_nonce=nonce
        )
        if reject:
            request.error_detail.message = reject
        return self.subscription.take(request)

    def push(self):
        return self.subscription.respond(
            lambda _, name: self.world.get(name), lambda _: self.world.keys()
        )

    def pushed(self) -> list[bytes]:
        """What is pushed, and acknowledged with the next request."""
        response = self.push()
        self.nonce = response.nonce
        return list(response.resources)


def test_only_what_changed_is_pushed_and_nothing_twice():
    client = Client(resources.ENDPOINTS)
    client.world = {"a": b"a1", "b": b"b1", "c": b"c1"}
    client.request("a", "b")
    first = client.push()
    assert list(first.resources) == [b"a1", b"b1"]
    client.request("a", "b", nonce=first.nonce)
    assert client.push() is None
    client.world["b"] = b"b2"
    second = client.push()
    assert list(second.resources) == [b"b2"]
    assert second.nonce != first.nonce


def test_clusters_and_listeners_are_always_complete():
    for type_url in (resources.CLUSTER, resources.LISTENER):
        client = Client(type_url)
        client.world = {"a": b"a", "b": b"b"}
        client.request("a")
        first = client.push()
        client.request("a", "b", nonce=first.nonce)
        assert list(client.push().resources) == [b"a", b"b"]


def test_a_star_is_all_there_are_beside_what_is_named():
    client = Client(resources.CLUSTER)
    client.world = {"a": b"a", "b": b"b"}
    client.request("b")
    assert client.pushed() == [b"b"]
    client.request("*", "z", nonce=client.nonce)
    assert client.pushed() == [b"a", b"b"]
    client.world["z"] = b"z"
    client.request("*", "z", nonce=client.nonce)
    assert client.pushed() == [b"a", b"b", b"z"]
    client.world = {"a": b"a2"}
    assert list(client.push().resources) == [b"a2", b"z"], "what is named is never taken away"


def test_what_was_gone_and_comes_back_as_it_was_is_sent_again():
    client = Client(resources.CLUSTER)
    client.world = {"a": b"a", "a/canary": b"c"}
    client.request()
    client.push()
    client.world = {"a": b"a"}
    assert list(client.push().resources) == [b"a"]
    client.world = {"a": b"a", "a/canary": b"c"}
    assert list(client.push().resources) == [b"a", b"c"]


def test_who_has_named_something_is_not_sent_all_for_an_empty_list():
    client = Client(resources.CLUSTER)
    client.world = {"a": b"a", "b": b"b"}
    client.request()
    assert client.pushed() == [b"a", b"b"]
    client.request("b", nonce=client.nonce)
    client.world |= {"b": b"b2", "c": b"c"}
    assert client.pushed() == [b"b2"]
    client.request(nonce=client.nonce)
    client.world["b"] = b"b3"
    assert client.push() is None


def test_what_is_held_back_is_pushed_when_it_appears():
    client = Client(resources.ENDPOINTS)
    client.request("a")
    assert client.push() is None
    client.world["a"] = b"a1"
    assert list(client.push().resources) == [b"a1"]


def test_an_answer_to_an_older_response_is_stale():
    client = Client(resources.ENDPOINTS)
    client.world = {"a": b"a1"}
    client.request("a")
    old = client.push()
    client.world["a"] = b"a2"
    new = client.push()
    assert client.request(nonce=old.nonce, reject="too late") is None
    assert client.subscription.names == {"a"}
    client.request(nonce=new.nonce)
    assert client.subscription.names == set()


def test_a_name_that_is_subscribed_again_is_sent_again():
    client = Client(resources.ENDPOINTS)
    client.world = {"a": b"a1", "b": b"b1"}
    client.request("a", "b")
    nonce = client.push().nonce
    client.request("b", nonce=nonce)
    assert client.push() is None
    client.request("a", "b", nonce=nonce)
    assert list(client.push().resources) == [b"a1"]


def test_a_rejected_resource_is_reported_and_not_repeated_until_it_changes():
    client = Client(resources.ENDPOINTS)
    client.world = {"a": b"bad", "b": b"b1"}
    client.request("a", "b")
    nonce = client.push().nonce
    rejected = client.request("a", "b", nonce=nonce, reject="a is bad")
    assert rejected is not None
    assert (rejected.names, rejected.reason) == (["a", "b"], "a is bad")
    assert client.push() is None
    client.world["a"] = b"good"
    assert list(client.push().resources) == [b"good"]


def test_endpoints_are_weighted_unique_and_never_names():
    packed = any_pb2.Any.FromString(
        resources.endpoints(
            "a",
            [("127.0.0.1:1", ""), ("[::1]:2", ""), ("127.0.0.1:1", "")],
            traffic_pb2.Traffic(),
            "",
        )
    )
    assert packed.type_url == resources.ENDPOINTS
    assignment = resources_pb2.ClusterLoadAssignment.FromString(packed.value)
    assert assignment.cluster_name == "a"
    (place,) = assignment.endpoints
    assert place.load_balancing_weight.value > 0
    sockets = [each.endpoint.address.socket_address for each in place.lb_endpoints]
    assert [(s.address, s.port_value) for s in sockets] == [("127.0.0.1", 1), ("::1", 2)]
    empty = any_pb2.Any.FromString(resources.endpoints("a", [], traffic_pb2.Traffic(), ""))
    assert not resources_pb2.ClusterLoadAssignment.FromString(empty.value).endpoints


def test_the_sink_is_an_address_the_client_can_reach():
    assert sink_address("10.0.0.7:7070", "ipv4:10.0.0.9:4711") == "10.0.0.7:7070"
    assert sink_address("[2001:db8::1]:7070", "ipv6:%5B::1%5D:4711") == "[2001:db8::1]:7070"
    assert sink_address("0.0.0.0:7070", "ipv4:127.0.0.1:4711") == "127.0.0.1:7070"
    assert sink_address("[::]:7070", "ipv4:127.0.0.1:4711") == "127.0.0.1:7070"
    assert sink_address("localhost:7070", "unix:") == "127.0.0.1:7070"
    assert sink_address("0.0.0.0:7070", "ipv4:junk:1") == "127.0.0.1:7070"
