"""The routes of an edge, without sockets: who may ask, and how an error is said."""

import random
from typing import Any, cast

import httpx
import pytest
from prometheus_client import CollectorRegistry

from adaptivegen.errors import Unauthenticated
from adaptivegen.local_only import NAMES
from adaptivegen.models.registry import ModelLibrary
from adaptivegen.rpc.video import Authenticator, Page
from edge_node.api.body import Bodies
from edge_node.api.http import HttpApi
from edge_node.auth import Loopback


class Keys:
    """Knows one key."""

    def tenant(self, authorization: str | None) -> str:
        if authorization != "Bearer good":
            raise Unauthenticated("unknown API key")
        return "acme"


class Videos:
    """Counts what gets through to it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def list(self, tenant: str, **_: object) -> Page:
        self.asked.append(tenant)
        return Page([], has_more=False)

    async def cancel(self, tenant: str, video_id: str) -> Any:
        self.asked.append(tenant)
        raise RuntimeError("a bug")


def edge(videos: Videos, *, keys: bool) -> httpx.AsyncClient:
    """A client of an edge, in this process."""
    api = HttpApi(
        videos=cast(Any, videos),
        authenticator=cast(Authenticator, Keys() if keys else Loopback()),
        delivery=cast(Any, None),
        ready=lambda: True,
        registry=CollectorRegistry(),
        rng=random.Random(1),
        bodies=Bodies(max_bytes=1000),
        cards=lambda: ModelLibrary().cards().values(),
        local_names=None if keys else NAMES,
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(api.application()), base_url="http://localhost:8080")


FOREIGN = [
    {"host": "evil.example"},
    {"host": "localhost.evil.example:8080"},
    {"host": ""},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost.evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_without_keys_what_a_web_page_sends_is_refused_before_anything_happens(headers: dict[str, str]) -> None:
    videos = Videos()
    async with edge(videos, keys=False) as client:
        for method, path in (
            ("GET", "/v1/videos"),
            ("POST", "/v1/videos"),
            ("POST", "/v1/videos/vid_x/cancel"),
            ("DELETE", "/v1/videos/vid_x"),
            ("GET", "/metrics"),
            ("GET", "/healthz"),
        ):
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied"), path
    assert videos.asked == []


async def test_without_keys_programs_and_pages_of_this_machine_are_answered() -> None:
    videos = Videos()
    async with edge(videos, keys=False) as client:
        for headers in ({}, {"origin": "http://localhost:3000"}, {"host": "127.0.0.1:1"}, {"host": "[::1]:1"}):
            assert (await client.get("/v1/videos", headers=headers)).status_code == 200
    assert videos.asked == ["local"] * 4


@pytest.mark.parametrize("headers", FOREIGN)
async def test_with_keys_only_the_key_counts(headers: dict[str, str]) -> None:
    videos = Videos()
    async with edge(videos, keys=True) as client:
        assert (await client.get("/v1/videos", headers=headers)).status_code == 401
        answer = await client.get("/v1/videos", headers={**headers, "authorization": "Bearer good"})
        assert answer.status_code == 200
    assert videos.asked == ["acme"]


async def test_a_bug_is_an_error_that_names_the_request() -> None:
    async with edge(Videos(), keys=False) as client:
        answer = await client.post("/v1/videos/vid_x/cancel", headers={"x-request-id": "req_mine"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "req_mine" in answer.json()["error"]["message"]
    assert answer.headers["x-request-id"] == "req_mine"


async def test_unknown_paths_and_methods_are_typed_errors() -> None:
    async with edge(Videos(), keys=False) as client:
        assert (await client.get("/nothing")).json()["error"]["code"] == "not_found"
        refused = await client.delete("/v1/videos")
        assert (refused.status_code, refused.json()["error"]["code"]) == (405, "invalid_request")
