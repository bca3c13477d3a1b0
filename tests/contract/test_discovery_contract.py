"""What every source of endpoints promises, asked of each: a file, the broker in memory and for real, and Consul.

Consul is the agent at CONSUL_HTTP_ADDR where that is set, else a small server of these tests; the tests' ids say which.
"""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adaptivegen.bus.base import Bus
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.discovery.base import Discovery, Endpoint
from adaptivegen.discovery.consul import ConsulDiscovery, Pace
from adaptivegen.discovery.consul_service import ConsulOptions
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.discovery.static_file import StaticFile
from adaptivegen.errors import InvalidRequest
from tests.consul_server import consul_server
from tests.servers import NatsServer

Publish = Callable[[Sequence[Endpoint]], Coroutine[Any, Any, Discovery]]

EDGES = [
    Endpoint("edge", "edge-2", http_url="http://127.0.0.1:8002", grpc_address="127.0.0.1:9002", region="eu"),
    Endpoint("edge", "edge-1", http_url="https://edge.example"),
]
WORKER = Endpoint("worker", "worker-1", grpc_address="[::1]:9003")


AGENT = os.environ.get("CONSUL_HTTP_ADDR", "")
CONSUL = "consul-agent" if AGENT else "consul-test-server"
LOOK_EVERY_S = 0.01


@pytest.fixture(params=["file", "memory", "nats", CONSUL])
async def publish(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Publish]:
    """Make endpoints known, and get the source that knows them."""
    if request.param == "file":

        async def write(endpoints: Sequence[Endpoint]) -> Discovery:
            path = tmp_path / "endpoints.json"
            path.write_text(json.dumps({"endpoints": [endpoint.fields() for endpoint in endpoints]}))
            return StaticFile(path, SystemClock(), look_every_s=LOOK_EVERY_S)

        yield write
        return
    if request.param == CONSUL:
        said = f"agent at {AGENT}" if AGENT else "test server of tests/consul_server.py"
        request.node.user_properties.append(("consul", said))  # `record_property` warns wherever a report is written
        opened = consul()
    else:
        server: NatsServer | None = request.getfixturevalue("own_nats") if request.param == "nats" else None
        opened = broker(server)  # its `nodes` bucket is empty
    async with opened as discovery, asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []

        async def register(endpoints: Sequence[Endpoint]) -> Discovery:
            tasks.extend(group.create_task(discovery.register(endpoint)) for endpoint in endpoints)
            async with asyncio.timeout(10):
                while not all([endpoint in await discovery.endpoints(endpoint.kind) for endpoint in endpoints]):
                    await asyncio.sleep(0.01)
            return discovery

        yield register
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def consul() -> AsyncIterator[Discovery]:
    """A real agent's, where CONSUL_HTTP_ADDR (and CONSUL_HTTP_TOKEN) name one, with names that nobody else uses."""
    options = ConsulOptions(token=os.environ.get("CONSUL_HTTP_TOKEN", ""), prefix=f"test-{uuid.uuid4().hex}")
    pace = Pace(rest_s=LOOK_EVERY_S)
    if AGENT:
        url = AGENT if "://" in AGENT else f"http://{AGENT}"
        yield ConsulDiscovery(SystemClock(), url=url, options=options, pace=pace)
        return
    async with consul_server() as server:
        server.accepted = options.token or None
        yield ConsulDiscovery(SystemClock(), url=server.url, options=options, pace=pace)


@asynccontextmanager
async def broker(server: NatsServer | None) -> AsyncIterator[Discovery]:
    bus: Bus = NatsBus([server.url], name="discovery") if server else MemoryBus(SystemClock())
    await bus.start()
    try:
        yield NatsDiscovery(bus, SystemClock(), look_every_s=LOOK_EVERY_S)
    finally:
        await bus.close()


async def test_endpoints_of_a_kind_are_listed_by_node_id_with_all_their_fields(publish: Publish) -> None:
    discovery = await publish([*EDGES, WORKER])
    assert await discovery.endpoints("edge") == [EDGES[1], EDGES[0]]
    assert await discovery.endpoints("worker") == [WORKER]


async def test_a_kind_nobody_has_is_an_empty_list(publish: Publish) -> None:
    discovery = await publish(EDGES)
    assert await discovery.endpoints("scheduler") == []
    assert await discovery.endpoints("edg") == []


async def test_nothing_known_is_an_empty_list(publish: Publish) -> None:
    discovery = await publish([])
    assert await discovery.endpoints("edge") == []


@pytest.mark.parametrize("kind", ["", "*", "edge.>", "Edge", "../edge", "a b"])
async def test_what_cannot_be_a_kind_is_refused(publish: Publish, kind: str) -> None:
    discovery = await publish([])
    with pytest.raises(InvalidRequest, match="kind is"):
        await discovery.endpoints(kind)


@pytest.mark.parametrize("kind", ["", "*", "Edge"])
async def test_what_cannot_be_a_kind_is_not_followed(publish: Publish, kind: str) -> None:
    async def tell(_: list[Endpoint]) -> None:
        raise AssertionError("told")

    discovery = await publish([])
    with pytest.raises(InvalidRequest, match="kind is"):
        await discovery.follow(kind, tell)


async def test_who_follows_a_kind_is_told_what_there_is_and_what_comes_and_nothing_twice(publish: Publish) -> None:
    told: list[list[Endpoint]] = []

    async def tell(nodes: list[Endpoint]) -> None:
        told.append(nodes)

    async def until_told(nodes: list[Endpoint]) -> None:
        async with asyncio.timeout(10):
            while not told or told[-1] != nodes:
                await asyncio.sleep(0.01)

    discovery = await publish([EDGES[0]])
    async with asyncio.TaskGroup() as group:
        following = group.create_task(discovery.follow("edge", tell))
        await until_told([EDGES[0]])
        await publish([EDGES[0], WORKER])  # of no kind that is followed
        await publish([*EDGES, WORKER])
        await until_told([EDGES[1], EDGES[0]])
        following.cancel()
    assert told == [[EDGES[0]], [EDGES[1], EDGES[0]]]


async def test_a_node_that_ends_is_taken_out(publish: Publish) -> None:
    discovery = await publish([])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(discovery.register(WORKER))
        async with asyncio.timeout(10):
            while not task.done() and await discovery.endpoints("worker") != [WORKER]:
                await asyncio.sleep(0.01)
        task.cancel()
    async with asyncio.timeout(10):
        while await discovery.endpoints("worker"):  # a real agent tells its servers in its own time
            await asyncio.sleep(0.01)
