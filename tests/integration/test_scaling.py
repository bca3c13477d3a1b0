"""Pools of workers on a whole scheduler: advised in metrics and by the admin service, scaled by order."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
from typer.testing import CliRunner, Result

from cli.admin import app
from tests.schedulers import Running, fleet, free_port, job_store, new_spec, scheduler, until
from tests.servers import NatsServer
from tests.unit.scheduler.builders import report


def invoke(running: Running, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--scheduler", running.address], env={"COLUMNS": "200"})


async def test_a_pool_is_advised_and_scaled(own_nats: NatsServer, tmp_path: Path) -> None:
    port = free_port()
    async with (
        scheduler(own_nats.url, tmp_path, http_port=port, min_workers=4) as running,
        fleet(own_nats.url, *(report(f"worker-{number}") for number in (1, 2, 3))),
        job_store(own_nats.url, tmp_path) as jobs,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        await running.sees(worker_1="healthy", worker_2="healthy", worker_3="healthy")

        async def run(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, *arguments)

        async def advised() -> dict[str, object] | None:
            pools = json.loads((await run("pools", "--json")).stdout)["pools"]
            return pools[0] if pools and pools[0]["workers"] == 3 else None

        pool = await until("advice on the pool", advised)
        assert (pool["pool"], pool["desired"], pool["panic"]) == ("default", 4, False)

        for _ in range(40):
            await jobs.submit(new_spec())

        async def busy() -> str | None:
            text = (await http.get("/metrics")).text
            return text if 'adaptivegen_scheduler_jobs_waiting{pool="default"} 40.0' in text else None

        assert 'workers_desired{pool="default"} 4.0' not in await until("seeing the queue", busy)
        assert "s wait" in (await run("pools")).stdout

        order = json.loads((await run("scale", "default", "1", "--json")).stdout)
        assert (len(order["drained"]), order["put_back"], order["missing"]) == (2, [], 0)
        kept = ({"worker-1", "worker-2", "worker-3"} - set(order["drained"])).pop()
        await running.sees(**{node.replace("-", "_"): "draining" for node in order["drained"]})
        assert (await running.states())[kept] == "healthy"
        assert (await run("scale", "default", "1")).stdout == "default has 1 in rotation already\n"

        back = await run("scale", "default", "4")
        assert "goes back into rotation" in back.stdout and "1 more must be started" in back.stdout
        await running.sees(worker_1="healthy", worker_2="healthy", worker_3="healthy")
        none = await run("scale", "default", "0", "--json")
        assert none.exit_code == 0 and len(json.loads(none.stdout)["drained"]) > 0
        assert "warning: no worker of default takes jobs any more; finals wait" in none.stderr
        assert (await run("scale", "nowhere", "1")).exit_code == 7
        assert (await run("scale", "default", "5000")).exit_code == 2


async def test_http_tells_health_and_answers_no_web_page(own_nats: NatsServer, tmp_path: Path) -> None:
    port = free_port()
    async with (
        scheduler(own_nats.url, tmp_path, http_port=port),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        assert (await http.get("/healthz")).status_code == (await http.get("/readyz")).status_code == 200
        page = await http.get("/metrics", headers={"origin": "https://elsewhere.example"})
        assert (page.status_code, page.json()["error"]["param"]) == (403, "origin")
        assert (await http.get("/metrics", headers={"host": "elsewhere.example"})).status_code == 403
