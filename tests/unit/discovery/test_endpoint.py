"""What may be an endpoint."""

from typing import Any

import pytest

from adaptivegen.discovery.base import Endpoint, parse_endpoint
from adaptivegen.errors import InvalidRequest

GOOD = {"kind": "edge", "node_id": "edge-1", "http_url": "http://127.0.0.1:8000"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "https://edge.example", "http://[::1]:80", "http://localhost/", "http://a-b.c:1"]
)
def test_addresses_of_hosts_are_taken(url: str) -> None:
    assert Endpoint("edge", "e", http_url=url).http_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://host",
        "file:///etc/passwd",
        "http://",
        "http://user:secret@host",
        "http://host/path",
        "http://host?query",
        "http://host:0",
        "http://host:99999",
        "http://host:x",
        "http://ho st",
        "http://host\n",
        "http://-host",
        "http://[::1",
    ],
)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="http_url is"):
        Endpoint("edge", "e", http_url=url)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:65535", "worker.example:9000"])
def test_grpc_addresses_are_host_and_port(address: str) -> None:
    assert Endpoint("worker", "w", grpc_address=address).grpc_address == address


@pytest.mark.parametrize(
    "address", ["", "host", "host:", "host:0", "host:65536", "host:123456", ":1", "dns:///host:1", "host:²", "a b:1"]
)
def test_what_is_no_host_and_port_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="grpc_address is"):
        Endpoint("worker", "w", grpc_address=address)


def test_an_endpoint_without_any_address_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="http_url or grpc_address"):
        Endpoint("edge", "e")


def test_fields_and_back_is_the_same_and_unset_ones_are_left_out() -> None:
    endpoint = Endpoint("edge", "e", http_url="http://h", region="eu")
    assert endpoint.fields() == {"kind": "edge", "node_id": "e", "http_url": "http://h", "region": "eu"}
    assert parse_endpoint(endpoint.fields(), where="x") == endpoint


def test_fields_of_later_versions_are_ignored() -> None:
    assert parse_endpoint({**GOOD, "weight": 3}, where="x") == Endpoint(**GOOD)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": None}, "list[2].kind"),
        ({"kind": "EDGE"}, "list[2].kind"),
        ({"node_id": "a.b"}, "list[2].node_id"),
        ({"node_id": 7}, "list[2].node_id"),
        ({"http_url": ["http://h"]}, "list[2].http_url"),
        ({"http_url": "http://"}, "list[2].http_url"),
        ({"grpc_address": "x"}, "list[2].grpc_address"),
        ({"region": "e u"}, "list[2].region"),
        ({"http_url": None}, "list[2].http_url"),
    ],
)
def test_errors_name_the_place_and_the_field(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_endpoint({**GOOD, **change}, where="list[2]")
    assert caught.value.param == named
    assert caught.value.message.startswith(named)


@pytest.mark.parametrize("value", [None, [], "edge", 3])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidRequest, match="x is"):
        parse_endpoint(value, where="x")
