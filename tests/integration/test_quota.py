"""Quotas from an operator's command to a client's answer: real broker, scheduler, edge and draft model."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import Result

from adaptivegen.errors import QuotaExceeded
from adaptivegen.sdk.client import Client
from tests.integration import real_nodes
from tests.integration.real_nodes import until
from tests.integration.test_admin import invoke
from tests.schedulers import Running
from tests.servers import NatsServer

BODY = {"prompt": "a red circle moves left", "intent": "iterate"}


async def test_a_quota_that_an_operator_sets_is_what_clients_hear(own_nats: NatsServer, tmp_path: Path) -> None:
    async with (
        real_nodes.scheduler(own_nats.url, tmp_path) as placing,
        real_nodes.edge(own_nats.url, tmp_path, threads=1, place_budget_s=2.0) as edge,  # it asks, however busy this is
        httpx.AsyncClient(base_url=edge.http, timeout=30) as http,
    ):
        running = Running(placing.grpc)

        async def quota(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, "quota", *arguments)

        for bad in (
            ("set", "local"),
            ("set", "local", "weight=0"),
            ("set", "A", "weight=1"),
            ("set", "local", "gpu=1"),
        ):
            assert (await quota(*bad)).exit_code == 2
        made = await quota("set", "local", "concurrent_jobs=0", "--reason", "not paid")
        assert made.exit_code == 0 and "not paid" in made.stdout

        async def refused() -> httpx.Response | None:
            answer = await http.post("/v1/videos", json=BODY)
            return answer if answer.status_code == 429 else None

        answer = await until("being refused", refused)  # an edge that has not found the scheduler yet decides alone
        error = answer.json()["error"]
        assert (error["code"], error["param"], error["retryable"]) == ("quota_exceeded", "concurrent_jobs", True)
        assert "retry-after" not in answer.headers  # waiting does not help
        assert "Tenant local may have no jobs (its quota of concurrent_jobs is 0)" in error["message"]
        for field, value in (("service_tier", "gold"), ("deadline_s", 0), ("deadline_s", "soon"), ("allow_reduced", 1)):
            wrong = await http.post("/v1/videos", json={**BODY, field: value})
            assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, field)
        with pytest.raises(QuotaExceeded, match="may have no jobs"):
            await asyncio.to_thread(submit, edge.http)

        shown = {one["tenant"]: one for one in json.loads((await quota("show", "--json")).stdout)["tenants"]}
        assert (shown["local"]["concurrent_jobs"], shown["*"]["concurrent_jobs"]) == (0.0, None)
        assert "local" in (await quota("show")).stdout
        assert (await quota("set", "local", "--unset", "concurrent_jobs")).exit_code == 0
        accepted = await http.post("/v1/videos", json=BODY)
        assert accepted.status_code in (200, 201, 202), accepted.text
        denied = await http.post("/v1/videos", json={**BODY, "service_tier": "priority"})
        assert (denied.status_code, denied.json()["error"]["code"]) == (403, "permission_denied")
        history = json.loads((await quota("history", "--json")).stdout)["changes"]
        assert [(change["number"], change["values"]) for change in history] == [(2, {}), (1, {"concurrent_jobs": 0.0})]
        await running.close()


def submit(url: str) -> None:
    with Client(url, retry_budget_s=0.5) as client:
        client.submit("a red circle", intent="iterate", deadline_s=5.0, allow_reduced=True, service_tier="default")


async def test_a_quota_holds_at_an_edge_that_no_scheduler_answers_any_more_and_after_its_restart(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    kept: dict[str, Any] = {"threads": 1, "spool_dir": tmp_path / "spool"}
    async with real_nodes.edge(own_nats.url, tmp_path, **kept) as edge:
        async with real_nodes.scheduler(own_nats.url, tmp_path) as placing:
            running = Running(placing.grpc)
            set_ = ("quota", "set", "local", "concurrent_jobs=0", "--reason", "not paid")
            assert (await asyncio.to_thread(invoke, running, *set_)).exit_code == 0
            await running.close()

            async def heard() -> bool | None:
                path = tmp_path / "spool" / "quotas"
                return True if path.exists() and b'"concurrent_jobs":0.0' in path.read_bytes() else None

            await until("the edge having heard", heard)
        assert await refused_alone(edge.http) == "concurrent_jobs"
    own_nats.kill()
    list_ = tmp_path / "nodes.json"
    list_.write_text('{"endpoints": []}')
    async with real_nodes.listed_edge(own_nats.url, tmp_path, list_, **kept) as edge:
        assert await refused_alone(edge.http) == "concurrent_jobs"


async def refused_alone(url: str) -> str:
    """What a refusal of an edge that decides alone is about."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        answer = await http.post("/v1/videos", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_exceeded"), answer.text
    assert "decides alone" in answer.json()["error"]["message"]
    return str(answer.json()["error"]["param"])
