"""The admin service over HTTP, without sockets: who may ask, how strictly it is read, how errors are said."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from adaptivegen.clock import ManualClock
from adaptivegen.errors import Conflict, NodeUnavailable
from adaptivegen.local_only import NAMES
from adaptivegen.roles import Roles
from adaptivegen.rpc.admin import AdminBackend
from adaptivegen.rpc.admin_rows import JobFilter, JobInfo, PolicyChangeInfo, QuotaChangeInfo, Scaled
from adaptivegen.serving import Peer
from scheduler.api.http import AdminHttp
from scheduler.api.reading import MAX_BODY_BYTES
from scheduler.api.stream import Streams
from scheduler.http import HttpApi

ROLES = Roles({"vera": "viewer", "otto": "operator", "ada": "admin", "nobody": "none"})


class Backend:
    """Keeps what got through to it."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def jobs(self, wanted: JobFilter) -> list[JobInfo]:
        self.asked.append(("jobs", wanted))
        return []

    async def dead_letters(self, limit: int) -> list[Any]:
        raise NodeUnavailable("away", retry_after_s=3.2)

    async def audit(self, limit: int) -> list[Any]:
        raise ZeroDivisionError

    async def drain(self, node_id: str, undo: bool, *, by: str) -> str:
        self.asked.append(("drain", node_id, undo, by))
        return "draining"

    async def scale(self, pool: str, workers: int, *, by: str) -> Scaled:
        self.asked.append(("scale", pool, workers, by))
        return Scaled(("worker-1",), (), 0)

    async def set_policy(
        self, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str
    ) -> PolicyChangeInfo:
        self.asked.append(("policy", dict(values), list(unset), by, reason))
        return PolicyChangeInfo(1, dict(values), by, reason, 2**62)

    async def set_quota(
        self, tenant: str, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str
    ) -> QuotaChangeInfo:
        raise Conflict("somebody was first")


def client(backend: Backend, *names: str, local: bool = False) -> httpx.AsyncClient:
    """Of an HTTP API in this process, with a certificate of these names."""
    streams = Streams(cast(Any, None), clock=ManualClock())
    admin = AdminHttp(cast(AdminBackend, backend), ROLES, streams)
    api = HttpApi(
        registry=CollectorRegistry(),
        ready=lambda: True,
        local_names=NAMES if local else None,
        beside=admin.routes(),
    ).application()

    async def with_names(scope: Scope, receive: Receive, send: Send) -> None:
        await api({**scope, "state": {"peer": Peer(names)}}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(with_names), base_url="http://localhost:8080")


ALLOWED = [
    ("ada", "POST", "policy"),
    ("ada", "POST", "pools/p/scale"),
    ("ada", "GET", "jobs"),
    ("otto", "POST", "nodes/n/drain"),
    ("otto", "POST", "pools/p/scale"),
    ("otto", "GET", "openapi.json"),
    ("vera", "GET", "jobs"),
    ("somebody", "GET", "jobs"),
]
DENIED = [
    ("otto", "POST", "policy"),
    ("otto", "POST", "tenants/t/quota"),
    ("vera", "POST", "nodes/n/drain"),
    ("vera", "POST", "pools/p/scale"),
    ("somebody", "POST", "nodes/n/drain"),
    ("nobody", "GET", "jobs"),
    ("nobody", "GET", "openapi.json"),
    ("nobody", "GET", "stream"),
    ("nobody", "GET", "../../admin"),
    ("nobody", "GET", "../../admin/app.js"),
]


async def ask(http: httpx.AsyncClient, method: str, path: str) -> httpx.Response:
    body = {"workers": 1} if path.endswith("scale") else {}
    return await http.request(method, f"/v1/admin/{path}", json=body if method == "POST" else None)


@pytest.mark.parametrize(("name", "method", "path"), ALLOWED)
async def test_who_has_the_role_is_answered(name: str, method: str, path: str) -> None:
    async with client(Backend(), name) as http:
        assert (await ask(http, method, path)).status_code == 200


@pytest.mark.parametrize(("name", "method", "path"), DENIED)
async def test_who_has_it_not_is_refused_and_nothing_is_read(name: str, method: str, path: str) -> None:
    backend = Backend()
    async with client(backend, name) as http:
        refused = await ask(http, method, path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        assert name in refused.json()["error"]["message"]
    assert backend.asked == []


async def test_orders_carry_the_names_of_who_gave_them() -> None:
    backend = Backend()
    async with client(backend, "ada", "ada@example") as http:
        done = await http.post("/v1/admin/nodes/edge-1/drain", json={"undo": True})
        assert done.json() == {"state": "draining"}
        done = await http.post("/v1/admin/pools/default/scale", json={"workers": 0})
        assert done.json() == {"drained": ["worker-1"], "put_back": [], "missing": 0}
        order = {"values": {"cost_iterate": 2}, "unset": ["cost_render"], "reason": "why"}
        made = (await http.post("/v1/admin/policy", json=order)).json()["change"]
        assert (made["at_ns"], made["values"]) == (2**62, {"cost_iterate": 2.0})
    by = "ada, ada@example"
    assert backend.asked == [
        ("drain", "edge-1", True, by),
        ("scale", "default", 0, by),
        ("policy", {"cost_iterate": 2.0}, ["cost_render"], by, "why"),
    ]


async def test_a_query_is_read_by_its_names() -> None:
    backend = Backend()
    async with client(backend, "vera") as http:
        assert (await http.get("/v1/admin/jobs")).json() == {"jobs": []}
        await http.get("/v1/admin/jobs?tenant=acme&status=failed&limit=7")
    assert backend.asked == [("jobs", JobFilter()), ("jobs", JobFilter("acme", "failed", 7))]


@pytest.mark.parametrize(
    ("query", "param", "said"),
    [
        ("limit=many", "limit", "limit is 'many'; allowed: a whole number"),
        ("limit=1.0", "limit", "a whole number"),
        ("limit=-1", "limit", "a whole number"),
        ("limit=%201", "limit", "a whole number"),
        ("limit=", "limit", "a whole number"),
        ("limit=1001", "limit", "less than or equal to 1000"),
        ("limit=" + "9" * 5000, "limit", "allowed: "),
        ("limit=1&limit=2", "query", "query is 'limit'; allowed: each name once"),
        ("Limit=1", "query", "query is 'Limit'; allowed: tenant, status, limit"),
        ("job_id=x", "query", "allowed: tenant, status, limit"),
    ],
)
async def test_a_query_that_is_wrong_is_refused_by_name_value_and_limit(query: str, param: str, said: str) -> None:
    backend = Backend()
    async with client(backend, "vera") as http:
        refused = await http.get(f"/v1/admin/jobs?{query}")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "invalid_request", param)
    assert said in error["message"]
    assert backend.asked == []


async def test_who_takes_nothing_says_so() -> None:
    async with client(Backend(), "vera") as http:
        refused = await http.get("/v1/admin/nodes?limit=1")
        assert "allowed: nothing" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        (b"", "body", "not valid JSON"),
        (b"{", "body", "not valid JSON"),
        (b"[]", "body", "a JSON object"),
        (b"\xff", "body", "not UTF-8"),
        (b'{"values": {}, "values": {}}', "body", "each key once"),
        (b'{"values": {"a": NaN}}', "body", "finite"),
        (b'{"values": {"a": 1e999}}', "body", "finite"),
        (b'{"values": {"a": ' + b"9" * 400 + b"}}", "values.a", "allowed: "),
        (b'{"values": {"a": "1"}}', "values.a", "values.a is '1'; allowed: a valid number"),
        (b'{"values": {"a": true}}', "values.a", "a valid number"),
        (b'{"values": []}', "values", "allowed: "),
        (b'{"values": null}', "values", "allowed: "),
        (b'{"unset": "cost_iterate"}', "unset", "allowed: "),
        (b'{"unset": [1]}', "unset.0", "a valid string"),
        (b'{"reason": 1}', "reason", "a valid string"),
        (b'{"reason": "\\ud800"}', "body", "surrogate"),
        (b'{"because": ""}', "body", "body is 'because'; allowed: values, unset, reason"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_by_name_value_and_limit(body: bytes, param: str, said: str) -> None:
    backend = Backend()
    async with client(backend, "ada") as http:
        refused = await http.post("/v1/admin/policy", content=body, headers={"content-type": "application/json"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "invalid_request", param)
    assert said in error["message"]
    assert backend.asked == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "workers"),
        ({"workers": None}, "workers"),
        ({"workers": "1"}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"workers": True}, "workers"),
        ({"workers": -1}, "workers"),
        ({"workers": 10**30}, "workers"),
        ({"workers": 1, "pool": "other"}, "body"),  # the path says which
    ],
)
async def test_how_many_workers_must_be_said(body: dict[str, object], param: str) -> None:
    backend = Backend()
    async with client(backend, "ada") as http:
        refused = await http.post("/v1/admin/pools/default/scale", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert backend.asked == []


async def test_a_body_that_is_too_large_or_compressed_is_refused() -> None:
    async with client(Backend(), "ada") as http:
        large = json.dumps({"reason": "x" * MAX_BODY_BYTES}).encode()
        refused = await http.post("/v1/admin/policy", content=large, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "payload_too_large")
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        refused = await http.post("/v1/admin/policy", content=b"x", headers=headers)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "content-encoding")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; a=b"])
async def test_what_a_page_elsewhere_can_send_unasked_changes_nothing(kind: str) -> None:
    backend = Backend()
    async with client(backend, "ada") as http:
        headers = {"content-type": kind} if kind else {}
        refused = await http.post("/v1/admin/nodes/n/drain", content=b"{}", headers=headers)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "content-type")
    assert backend.asked == []


async def test_pages_of_other_sites_are_refused_and_our_own_is_not() -> None:
    backend = Backend()
    for local in (True, False):
        async with client(backend, "ada", local=local) as http:
            for origin in ("https://elsewhere.example", "http://localhost:3000", "null"):
                refused = await http.post("/v1/admin/nodes/n/drain", json={}, headers={"origin": origin})
                assert (refused.status_code, refused.json()["error"]["param"]) == (403, "origin")
                assert (await http.get("/v1/admin/jobs", headers={"origin": origin})).status_code == 403
            assert backend.asked == []
            own = {"origin": "http://localhost:8080", "content-type": "application/json; charset=utf-8"}
            assert (await http.post("/v1/admin/nodes/n/drain", content="{}", headers=own)).status_code == 200
        backend.asked.clear()
    async with client(backend, "ada", local=True) as http:
        image = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        assert (await http.get("/v1/admin/stream", headers=image)).status_code == 403
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert (await http.get("/admin", headers=link)).status_code == 200
        rebound = await http.get("/v1/admin/jobs", headers={"host": "elsewhere.example"})
        assert (rebound.status_code, rebound.json()["error"]["param"]) == (403, "host")


async def test_errors_are_said_as_everywhere() -> None:
    async with client(Backend(), "ada") as http:
        away = await http.get("/v1/admin/dead-letters")
        assert (away.status_code, away.headers["retry-after"]) == (503, "4")
        expected = {"code": "node_unavailable", "message": "away", "param": None, "retryable": True}
        assert away.json() == {"error": expected}
        assert (await http.post("/v1/admin/tenants/*/quota", json={})).status_code == 409
        bug = await http.get("/v1/admin/audit")
        assert (bug.status_code, bug.json()["error"]["code"]) == (500, "internal")
        lost = await http.get("/v1/admin/nothing")
        assert (lost.status_code, lost.json()["error"]["code"]) == (404, "not_found")
        wrong = await http.delete("/v1/admin/policy")
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (405, "method")
        assert wrong.headers["allow"] == "GET, HEAD, POST"
        assert wrong.json()["error"]["message"] == "method is 'DELETE'; allowed: GET, HEAD, POST"


async def test_the_page_and_its_files_have_the_policy_that_keeps_them_to_themselves() -> None:
    async with client(Backend(), "vera") as http:
        for path, kind in (("", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css")):
            served = await http.get(f"/admin{path}")
            assert served.status_code == 200
            assert served.headers["content-type"] == f"{kind}; charset=utf-8"
            assert served.headers["content-security-policy"].startswith("default-src 'self';")
            assert served.headers["x-content-type-options"] == "nosniff"
        assert (await http.get("/admin/../service.py")).status_code == 404


async def test_health_stays_open_to_whoever_has_no_role() -> None:
    async with client(Backend(), "nobody") as http:
        for path in ("healthz", "readyz", "metrics"):
            assert (await http.get(f"/{path}")).status_code == 200
