"""The admin service over HTTP and the dashboard's stream, of a whole scheduler: over loopback, and with mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from adaptivegen.errors import PermissionDenied
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.placement import Decision
from adaptivegen.rpc.admin_client import AdminClient
from adaptivegen.rpc.admin_rows import DecisionInfo, PurgeOrder
from adaptivegen.rpc.channel import ClientTls
from adaptivegen.sdk.sse import SseDecoder
from scheduler.api.stream import MAX_STREAMS
from scheduler.snapshot import InAll, Snapshot
from tests.people import People, secured
from tests.schedulers import fleet, free_port, job_store, new_spec, pushing, scheduler, until
from tests.servers import NatsServer
from tests.unit.scheduler.builders import outcome, report

ROOT = "/v1/admin"


async def snapshots(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The snapshots of an open stream, until it ends."""
    decoder = SseDecoder()
    async for chunk in response.aiter_bytes():
        for event in decoder.feed(chunk):
            assert event.event == "snapshot"
            yield json.loads(event.data)


async def test_the_same_service_over_http(own_nats: NatsServer, tmp_path: Path) -> None:
    port = free_port()
    async with (
        scheduler(own_nats.url, tmp_path, http_port=port) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
        job_store(own_nats.url, tmp_path) as jobs,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{ROOT}") as http,
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        spec = new_spec()
        await jobs.submit(spec)

        await _looked_at(http, spec)
        await _ordered(http)
        await _purged(http, spec)
        audited = [(entry["action"], entry["target"]) for entry in (await _get(http, "/audit"))["entries"]]
        assert audited[-2:] == [("put-back", "worker-1"), ("drain", "worker-1")]
        orders = {"drain", "put-back", "scale", "set-policy", "set-quota", "purge-caches", "purge-videos"}
        assert {action for action, _ in audited} == orders

        refused = await http.post("/policy", json={"values": {"cost_iterate": -1}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
        assert (await http.post("/nodes/worker-9/drain", json={})).status_code == 404
        assert (await _get(http, "/openapi.json"))["openapi"] == "3.1.0"
        page = await http.get(f"http://127.0.0.1:{port}/admin")
        assert "text/html" in page.headers["content-type"]


async def _get(http: httpx.AsyncClient, path: str) -> Any:
    answer = await http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _looked_at(http: httpx.AsyncClient, spec: JobSpec) -> None:
    assert [node["node_id"] for node in (await _get(http, "/nodes"))["nodes"]] == ["edge-1", "worker-1"]
    (job,) = (await _get(http, "/jobs?tenant=local&status=queued&limit=5"))["jobs"]
    assert job["id"] == spec.id
    assert (await _get(http, "/jobs?tenant=other"))["jobs"] == []
    explained = await _get(http, f"/jobs/{spec.id}/explain")
    assert Decision.model_validate(explained["decision"]) == spec.decision
    assert (await http.get(f"/jobs/{spec.id}/explain?tenant=other")).status_code == 404
    assert set(await _get(http, "/predictions")) == {"paces", "accuracies", "sizes", "ways", "loads", "chances"}
    for path, name in {"/dead-letters": "letters", "/ratings": "ratings", "/quotas/changes": "changes"}.items():
        assert (await _get(http, path))[name] == []
    assert (await _get(http, "/tenants"))["tenants"][0]["tenant"] == "*"
    assert any(pool["pool"] == "default" for pool in await until("advice", lambda: _pools(http)))


async def _ordered(http: httpx.AsyncClient) -> None:
    drained = await http.post("/nodes/worker-1/drain", json={})
    assert drained.json() == {"state": "draining"}
    assert (await http.post("/nodes/worker-1/drain", json={"undo": True})).status_code == 200
    scaled = await http.post("/pools/default/scale", json={"workers": 3})
    assert scaled.json() == {"drained": [], "put_back": [], "missing": 2}
    order = {"values": {"cost_iterate": 0.5}, "reason": "cheap today"}
    change = (await http.post("/policy", json=order)).json()["change"]
    assert (change["number"], change["values"], change["reason"]) == (1, {"cost_iterate": 0.5}, "cheap today")
    values = {value["name"]: value["in_force"] for value in (await _get(http, "/policy"))["values"]}
    assert values["cost_iterate"] == 0.5
    assert (await _get(http, "/policy/changes?limit=1"))["changes"] == [change]
    quota = (await http.post("/tenants/acme/quota", json={"values": {"concurrent_jobs": 2}})).json()["change"]
    assert (quota["tenant"], quota["values"]) == ("acme", {"concurrent_jobs": 2.0})
    everybody = await http.post("/tenants/*/quota", json={"values": {"weight": 2}})
    assert everybody.json()["change"]["tenant"] == "*"


async def _purged(http: httpx.AsyncClient, spec: JobSpec) -> None:
    for bad, param in (({}, "ids"), ({"ids": ["x"]}, "ids"), ({"tenant": "t", "older_than_s": -1}, "older_than_s")):
        refused = await http.post("/purge/videos", json=bad)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    purged = await http.post("/purge/caches", json={"tenant": "local", "older_than_s": 0})
    assert purged.json() == {"examined": 1, "videos": 1, "bytes": 0, "failed": 0, "next": ""}
    purged = await http.post("/purge/videos", json={"tenant": "local", "dry_run": True})
    assert purged.json()["videos"] == 1
    purged = await http.post("/purge/videos", json={"ids": [spec.id], "reason": "asked for"})
    assert (purged.status_code, purged.json()["videos"]) == (200, 1)
    assert (await http.get(f"/jobs/{spec.id}/explain?tenant=local")).status_code == 404


async def _pools(http: httpx.AsyncClient) -> list[dict[str, Any]] | None:
    return (await http.get("/pools")).json()["pools"] or None


async def test_a_dashboard_is_pushed_what_happens(own_nats: NatsServer, tmp_path: Path) -> None:
    port = free_port()
    async with (
        asyncio.timeout(60),
        scheduler(own_nats.url, tmp_path, http_port=port) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{ROOT}", timeout=10.0) as http,
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        async with http.stream("GET", "/stream") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            pushed = snapshots(response)
            first = await anext(pushed)
            assert (first["scheduler"], first["decisions"], first["compared"]) == ("scheduler-1", [], [])
            assert {node["node_id"]: node["state"] for node in first["nodes"]} == {
                "edge-1": "healthy",
                "worker-1": "healthy",
            }
            decision = await running.place()
            await running.placer.report(outcome(decision, draft_s=0.4, final_s=19.0))
            await http.post("/nodes/edge-1/drain", json={})
            async for snapshot in pushed:
                if snapshot["compared"] and snapshot["nodes"][0]["state"] == "draining":
                    break
            assert snapshot["at_ns"] > first["at_ns"]
            (shown,) = snapshot["decisions"]
            assert (shown["plan"], shown["job_id"], shown["tenant"]) == ("refine", decision.job_id, "local")
            assert tuple(shown["reasons"]) == decision.reasons
            assert snapshot["plans"] == [{"plan": "refine", "param": "", "count": 1}]
            parts = {part["part"]: part for part in snapshot["compared"]}
            assert set(parts) == {"draft", "final", "qoe"}
            assert parts["final"]["observed_p50"] == 19.0
            assert parts["qoe"]["observed_p50"] < parts["qoe"]["predicted_p50"]
            assert snapshot["nodes"][0]["node_id"] == "edge-1"  # who is not healthy comes first
            assert (snapshot["in_all"]["nodes"], snapshot["in_all"]["healthy"]) == (2, 1)


async def test_there_are_so_many_streams_and_others_are_told_when_to_come_back(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}{ROOT}/stream"
    async with scheduler(own_nats.url, tmp_path, http_port=port), httpx.AsyncClient(timeout=10.0) as http:
        opened = [await http.send(http.build_request("GET", address), stream=True) for _ in range(MAX_STREAMS)]
        assert {response.status_code for response in opened} == {200}
        refused = await http.get(address)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "resource_exhausted")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await http.head(address)).status_code == 200
        assert (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200
        for response in opened:
            await response.aclose()

        async def free() -> bool | None:
            again = await http.send(http.build_request("GET", address), stream=True)
            await again.aclose()
            return True if again.status_code == 200 else None

        await until("a free place", free)


async def test_a_reader_that_stops_reading_loses_its_connection_and_others_go_on() -> None:
    reasons = ("x" * 500,) * 20
    decisions = (DecisionInfo(1, "j", "t", "refine", "e", "", "p", None, None, None, None, reasons, "", ""),) * 200

    async def take() -> Snapshot:
        return Snapshot("s", 1, 0, (), (), (), (), (), (), (), (), decisions, InAll(0, 0, 0, 0, 0))

    async with (
        asyncio.timeout(60),
        pushing(take) as (streams, port),
        httpx.AsyncClient(timeout=10.0) as http,
    ):
        address = f"http://127.0.0.1:{port}{ROOT}/stream"
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(f"GET {ROOT}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"200" in await reader.readline()  # and nothing more is read
        async with http.stream("GET", address) as response:
            pushed = snapshots(response)
            await anext(pushed)
            assert len(streams) == 2
            while len(streams) == 2:
                await streams.push()
                await anext(pushed)
            await streams.push()
            assert (await anext(pushed))["scheduler"] == "s"
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass  # what was on its way comes, and then the end
        writer.close()


async def test_streams_end_when_the_scheduler_drains(own_nats: NatsServer, tmp_path: Path) -> None:
    port = free_port()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60), httpx.AsyncClient(timeout=10.0) as http, asyncio.TaskGroup() as group:
        async with scheduler(own_nats.url, tmp_path, http_port=port, drain_grace_s=20.0):
            request = http.build_request("GET", f"http://127.0.0.1:{port}{ROOT}/stream")
            response = await http.send(request, stream=True)
            pushed = snapshots(response)
            await anext(pushed)
            rest = group.create_task(_count(pushed))
            began_s = loop.time()
        assert loop.time() - began_s < 10.0  # it was not waited for as long as the grace is
        await rest


async def _count(pushed: AsyncIterator[dict[str, Any]]) -> int:
    return len([snapshot async for snapshot in pushed])


# ---- mutual TLS


async def test_roles_go_by_the_names_in_certificates(own_nats: NatsServer, tmp_path: Path) -> None:
    async with secured(own_nats.url, tmp_path) as (people, _, port), fleet(own_nats.url, report("worker-1")):
        vera = people.issue("vera", "vera.example")
        otto = people.issue("otto", "vera.example", "otto.example")
        ada = people.issue("ada", "ada.example", common_name="Ada")
        mallory = people.issue("mallory", "otto.example", "mallory.example")

        async def statuses(shown: ClientTls) -> list[int]:
            async with people.http(port, shown) as http:
                posted = [
                    await http.post(f"{ROOT}/nodes/worker-1/drain", json={}),
                    await http.post(f"{ROOT}/policy", json={"values": {"cost_iterate": 1}}),
                ]
                looked = [await http.get(path) for path in (f"{ROOT}/nodes", f"{ROOT}/openapi.json", "/admin")]
                assert (await http.get("/readyz")).status_code == 200
                return [answer.status_code for answer in (*looked, *posted)]

        async def known() -> bool | None:
            async with people.http(port, vera) as http:
                return True if (await http.get(f"{ROOT}/nodes")).json()["nodes"] else None

        await until("hearing the worker", known)
        assert await statuses(vera) == [200, 200, 200, 403, 403]
        assert await statuses(otto) == [200, 200, 200, 200, 403]
        assert await statuses(ada) == [200, 200, 200, 200, 200]
        assert await statuses(mallory) == [403, 403, 403, 403, 403]
        async with people.http(port, ada) as http:
            entries = (await http.get(f"{ROOT}/audit")).json()["entries"]
            assert [(entry["action"], entry["by"]) for entry in entries] == [
                ("set-policy", "ada.example, Ada"),
                ("drain", "ada.example, Ada"),
                ("drain", "vera.example, otto.example"),
            ]
            async with http.stream("GET", f"{ROOT}/stream") as response:
                assert (await anext(snapshots(response)))["nodes"][0]["state"] == "draining"
            elsewhere = {"origin": "https://elsewhere.example"}  # a browser would show the certificate there, too
            refused = await http.post(f"{ROOT}/nodes/worker-1/drain", json={"undo": True}, headers=elsewhere)
            assert refused.status_code == 403


async def test_without_a_certificate_of_the_authority_nothing_is_answered(own_nats: NatsServer, tmp_path: Path) -> None:
    async with secured(own_nats.url, tmp_path) as (people, _, port):
        (tmp_path / "strangers").mkdir()
        stranger = People(trustme.CA(), tmp_path / "strangers").issue("ada", "Ada", common_name="Ada")
        for shown in (None, stranger):
            async with people.http(port, shown) as http:
                with pytest.raises(httpx.TransportError):
                    await http.get("/healthz")


async def test_a_certificate_has_the_same_names_over_both_doors(own_nats: NatsServer, tmp_path: Path) -> None:
    names = ("mallory.example", "*.vera.example", "vera@mail.example", "10.1.2.3", "2001:db8::7")
    async with secured(own_nats.url, tmp_path) as (people, address, port):
        shown = people.issue("many", *names, common_name="Many Names")
        client = AdminClient(address, tls=shown)
        with pytest.raises(PermissionDenied) as refused:
            await client.nodes()
        await client.close()
        async with people.http(port, shown) as http:
            denied = (await http.get(f"{ROOT}/nodes")).json()["error"]["message"]
        assert denied == refused.value.message
        assert all(name in denied for name in (*names, "Many Names"))


async def test_purging_needs_an_operator_and_deleting_an_admin_over_both_doors(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with secured(own_nats.url, tmp_path) as (people, address, port):
        shown = {
            "vera": people.issue("vera", "vera.example"),
            "otto": people.issue("otto", "otto.example"),
            "ada": people.issue("ada", "ada.example", common_name="Ada"),
        }
        allowed = {"vera": (False, False), "otto": (True, False), "ada": (True, True)}
        for name, expected in allowed.items():
            client = AdminClient(address, tls=shown[name])
            for method, may in zip((client.purge_caches, client.purge_videos), expected, strict=True):
                try:
                    await method(PurgeOrder(tenant="t", dry_run=True))
                except PermissionDenied:
                    assert not may, name
                else:
                    assert may, name
            await client.close()
            async with people.http(port, shown[name]) as http:
                for path, may in zip(("caches", "videos"), expected, strict=True):
                    answer = await http.post(f"{ROOT}/purge/{path}", json={"tenant": "t"})
                    assert answer.status_code == (200 if may else 403), (name, path)
        async with people.http(port, shown["ada"]) as http:
            entries = (await http.get(f"{ROOT}/audit")).json()["entries"]
        assert [(entry["action"], entry["by"]) for entry in entries] == [  # dry runs change nothing
            ("purge-videos", "ada.example, Ada"),
            ("purge-caches", "ada.example, Ada"),
            ("purge-caches", "otto.example"),
        ]
