"""How real nodes find one another: by the broker or Consul, where each registers and takes itself out, or by a file."""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.consul import ConsulDiscovery
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.models.registry import ModelLibrary
from core_cloud.service import serve as serve_worker
from core_cloud.settings import WorkerSettings
from scheduler.service import serve as serve_scheduler
from scheduler.settings import SchedulerSettings
from tests.consul_server import ConsulServer, consul_server
from tests.integration import real_nodes
from tests.integration.real_nodes import (
    CLOCK,
    Node,
    broker,
    cache,
    listed_edge,
    on_loopback,
    registered,
    scheduler,
    service,
    until,
    worker,
)
from tests.servers import NatsServer

Running = Callable[[str, Path], AbstractAsyncContextManager[Node]]


async def known(nats_url: str, kind: str) -> list[Endpoint]:
    async with broker(nats_url) as bus:
        return await NatsDiscovery(bus, CLOCK).endpoints(kind)


async def known_to(consul: ConsulServer, kind: str) -> list[Endpoint]:
    return await ConsulDiscovery(CLOCK, url=consul.url).endpoints(kind)


async def found_in(consul: ConsulServer, kind: str) -> Endpoint:
    async def look() -> Endpoint | None:
        return next(iter(await known_to(consul, kind)), None)

    return await until(f"a {kind} in Consul", look)


async def decider(node: Node, folder: Path, seed: int) -> str:
    """Who decided on a new video of this edge."""
    async with httpx.AsyncClient(timeout=20) as client:
        body = {"prompt": "a red circle moves left", "seed": seed, "plan": "cloud"}
        answer = await client.post(f"{node.http}/v1/videos", json=body)
    assert answer.status_code == 202, answer.text
    spec = json.loads((folder / f"store/jobs/local/{answer.json()['id']}/spec").read_text())
    return str(spec["decision"]["decided_by"])


async def test_an_edge_takes_its_scheduler_from_a_file_written_later(own_nats: NatsServer, tmp_path: Path) -> None:
    listing = tmp_path / "nodes.json"
    async with (
        listed_edge(own_nats.url, tmp_path, listing, place_budget_s=5.0) as edge,
        scheduler(own_nats.url, tmp_path) as placing,
    ):
        assert await decider(edge, tmp_path, 0) == "edge-1"  # the broker knows the scheduler, but is not asked
        assert await known(own_nats.url, "edge") == []
        listing.write_text(json.dumps({"endpoints": [placing.endpoint.fields()]}))
        seeds = iter(range(1, 1000))

        async def decided_elsewhere() -> bool | None:
            return True if await decider(edge, tmp_path, next(seeds)) == "scheduler-1" else None

        await until("the scheduler of the file deciding", decided_elsewhere)


@pytest.mark.parametrize(("kind", "running"), [("worker", worker), ("scheduler", scheduler), ("edge", real_nodes.edge)])
async def test_a_node_is_listed_at_the_address_it_serves_and_taken_out_at_its_end(
    own_nats: NatsServer, tmp_path: Path, kind: str, running: Running
) -> None:
    async with running(own_nats.url, tmp_path) as node:
        assert node.endpoint.kind == kind
        assert await known(own_nats.url, kind) == [node.endpoint]
    assert await known(own_nats.url, kind) == []


async def test_a_cache_needs_no_broker_to_be_found_by_consul(tmp_path: Path) -> None:
    async with consul_server() as consul:
        async with cache("", tmp_path, discovery=f"consul:{consul.url}") as node:
            assert await found_in(consul, "cache") == node.endpoint
        assert await known_to(consul, "cache") == []


@pytest.mark.parametrize("check", ["ttl", "grpc"])
async def test_an_edge_takes_its_scheduler_from_consul_and_both_take_themselves_out(
    own_nats: NatsServer, tmp_path: Path, check: str
) -> None:
    async with consul_server() as consul:
        source = {"discovery": f"consul:{consul.url}", "consul_check": check}
        settings = SchedulerSettings(**on_loopback(own_nats.url, tmp_path, "scheduler-1", source))

        async def serve(stop: asyncio.Event) -> None:
            await serve_scheduler(settings, cards=ModelLibrary().cards(), clock=CLOCK, rng=random.Random(6), stop=stop)

        async with (
            service(serve, lambda: found_in(consul, "scheduler")),
            listed_edge(own_nats.url, tmp_path, tmp_path / "none", place_budget_s=5.0, **source) as edge,
        ):
            assert await found_in(consul, "edge") == edge.endpoint
            seeds = iter(range(1, 1000))

            async def decided_elsewhere() -> bool | None:
                return True if await decider(edge, tmp_path, next(seeds)) == "scheduler-1" else None

            await until("the scheduler in Consul deciding", decided_elsewhere)
            assert await known(own_nats.url, "edge") == await known(own_nats.url, "scheduler") == []
        assert consul.registered == {}


async def test_a_worker_is_found_by_consul_and_takes_itself_out(own_nats: NatsServer, tmp_path: Path) -> None:
    async with consul_server() as consul:
        changes = {"discovery": f"consul:{consul.url}"}
        settings = WorkerSettings(**on_loopback(own_nats.url, tmp_path, "worker-1", changes))

        async def serve(stop: asyncio.Event) -> None:
            await serve_worker(settings, clock=CLOCK, rng=random.Random(7), stop=stop)

        async with service(serve, lambda: found_in(consul, "worker")) as node:
            assert node.endpoint.node_id == "worker-1"
        assert consul.registered == {}


async def test_a_cache_registers_where_it_is_told_of_a_broker(own_nats: NatsServer, tmp_path: Path) -> None:
    async with cache(own_nats.url, tmp_path) as node:
        assert await registered(own_nats.url, "cache", "cache-1") == node.endpoint
    assert await known(own_nats.url, "cache") == []


async def test_a_cache_serves_without_a_broker_and_ends_while_it_looks_for_one(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with cache("", tmp_path / "told of none"):
        assert await known(own_nats.url, "cache") == []
    async with cache("nats://127.0.0.1:1", tmp_path / "told of one that is away"):
        pass


async def test_an_edge_that_was_told_of_no_cache_sends_clients_to_one_that_registered(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        cache(own_nats.url, tmp_path) as media,
        real_nodes.edge(own_nats.url, tmp_path) as edge,
        httpx.AsyncClient(timeout=20, base_url=edge.http) as client,
    ):
        body = {"prompt": "a red circle moves left", "seed": 1, "plan": "draft"}
        video = (await client.post("/v1/videos", json=body)).json()["id"]

        async def sent_to() -> str | None:
            answer = await client.get(f"/v1/videos/{video}/content", params={"variant": "draft"})
            return answer.headers["location"] if answer.is_redirect else None

        location = await until("being sent to the cache", sent_to)
        assert location.startswith(f"{media.http}/media/")
        assert (await client.get(location)).status_code == 200
