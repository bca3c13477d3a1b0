"""What is registered of a node in Consul, what is read from its answers, and what is asked next."""

from typing import Any

import pytest

from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.consul_service import ConsulOptions, endpoints_of, next_index, service_of
from adaptivegen.errors import InvalidRequest

EDGE = Endpoint("edge", "e1", http_url="https://edge.example", grpc_address="[::1]:9000", region="eu")
CACHE = Endpoint("cache", "c1", http_url="https://cache.example")


def entry(endpoint: Endpoint, changed: object = 1) -> dict[str, Any]:
    return {"Service": {"Meta": endpoint.fields(), "ModifyIndex": changed}}


def test_a_node_is_a_service_of_its_kind_with_an_id_of_its_own_and_all_its_fields() -> None:
    service = service_of(EDGE, ConsulOptions(prefix="staging"))
    assert (service.name, service.id) == ("staging-edge", "staging.edge.e1")
    assert (service.address, service.port) == ("::1", 9000)
    assert service.meta == EDGE.fields()


@pytest.mark.parametrize(("url", "port"), [("https://h", 443), ("http://h", 80), ("http://h:8080/", 8080)])
def test_a_node_without_grpc_is_told_of_by_its_url(url: str, port: int) -> None:
    service = service_of(Endpoint("cache", "c", http_url=url), ConsulOptions())
    assert (service.address, service.port) == ("h", port)


def test_a_node_tells_that_it_lives_and_is_forgotten_when_it_no_longer_does() -> None:
    service = service_of(EDGE, ConsulOptions(), ttl_s=15)
    assert service.check == {"TTL": "15s", "Status": "passing", "DeregisterCriticalServiceAfter": "1m"}
    assert service.heartbeat
    assert service.check_id == "service:adaptivegen.edge.e1"


def test_a_node_that_the_agent_can_reach_is_asked_and_not_listed_before_it_answered() -> None:
    service = service_of(EDGE, ConsulOptions(check="grpc", grpc_tls=True), ttl_s=15)
    assert service.check["GRPC"] == "[::1]:9000"
    assert service.check["GRPCUseTLS"] is True
    assert service.check["DeregisterCriticalServiceAfter"] == "1m"
    assert "Status" not in service.check and not service.heartbeat


def test_a_node_without_grpc_tells_that_it_lives_in_any_case() -> None:
    assert service_of(CACHE, ConsulOptions(check="grpc")).heartbeat


def test_what_was_registered_is_read_by_node_id() -> None:
    other = Endpoint("edge", "e0", http_url="http://h")
    assert endpoints_of([entry(EDGE), entry(other)], "edge") == ([other, EDGE], [])


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (None, "edge[0]"),
        ([], "edge[0]"),
        ({}, "edge[0]"),
        ({"Service": "edge"}, "edge[0]"),
        ({"Service": {}}, "edge[0].Meta"),
        ({"Service": {"Meta": None}}, "edge[0].Meta"),
        ({"Service": {"Meta": {"kind": "edge"}}}, "edge[0].Meta.node_id"),
        ({"Service": {"Meta": {**EDGE.fields(), "node_id": "../x"}}}, "edge[0].Meta.node_id"),
        ({"Service": {"Meta": {**EDGE.fields(), "http_url": "file:///etc"}}}, "edge[0].Meta.http_url"),
        ({"Service": {"Meta": CACHE.fields()}}, "edge[0].Meta.kind"),
    ],
)
def test_a_bad_entry_is_left_out_and_named_and_hides_no_good_one(bad: object, named: str) -> None:
    found, faults = endpoints_of([bad, entry(EDGE)], "edge")
    assert found == [EDGE]
    (fault,) = faults
    assert fault.startswith(f"{named} is ")


@pytest.mark.parametrize("changed", [[3, 7], [7, 3]])
def test_of_two_with_one_node_id_the_one_registered_last_counts(changed: list[int]) -> None:
    moved = Endpoint("edge", "e1", http_url="http://moved")
    nodes = [EDGE, moved] if changed == [3, 7] else [moved, EDGE]
    found, faults = endpoints_of([entry(node, at) for node, at in zip(nodes, changed, strict=True)], "edge")
    assert found == [moved]
    assert "each node of a kind once" in faults[0]


def test_an_entry_that_does_not_say_when_it_was_registered_is_the_oldest() -> None:
    moved = Endpoint("edge", "e1", http_url="http://moved")
    assert endpoints_of([entry(moved, 1), entry(EDGE, "soon")], "edge")[0] == [moved]


@pytest.mark.parametrize(
    ("asked", "answered", "then"), [(0, 5, 5), (5, 6, 6), (5, 5, 5), (5, 4, 0), (5, 0, 0), (0, 0, 0), (5, 1, 0)]
)
def test_an_index_that_went_backwards_or_is_none_begins_anew(asked: int, answered: int, then: int) -> None:
    assert next_index(asked, answered) == then


def test_what_cannot_be_a_kind_names_no_service() -> None:
    with pytest.raises(InvalidRequest, match="kind is"):
        ConsulOptions().service_name("../edge")
