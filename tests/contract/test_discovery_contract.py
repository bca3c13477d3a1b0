"""What every source of endpoints promises, asked of each: a file, and the broker in memory and for real."""

import asyncio
import json
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
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.discovery.static_file import StaticFile
from adaptivegen.errors import InvalidRequest
from tests.servers import NatsServer

Publish = Callable[[Sequence[Endpoint]], Coroutine[Any, Any, Discovery]]

EDGES = [
    Endpoint("edge", "edge-2", http_url="http://127.0.0.1:8002", grpc_address="127.0.0.1:9002", region="eu"),
    Endpoint("edge", "edge-1", http_url="https://edge.example"),
]
WORKER = Endpoint("worker", "worker-1", grpc_address="[::1]:9003")


@pytest.fixture(params=["file", "memory", "nats"])
async def publish(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Publish]:
    """Make endpoints known, and get the source that knows them."""
    if request.param == "file":

        async def write(endpoints: Sequence[Endpoint]) -> Discovery:
            path = tmp_path / "endpoints.json"
            path.write_text(json.dumps({"endpoints": [endpoint.fields() for endpoint in endpoints]}))
            return StaticFile(path, SystemClock())

        yield write
        return
    bus: Bus = MemoryBus(SystemClock())
    if request.param == "nats":
        server: NatsServer = request.getfixturevalue("own_nats")  # its `nodes` bucket is empty
        bus = NatsBus([server.url], name="discovery")
    async with connected(bus), asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[None]] = []

        async def register(endpoints: Sequence[Endpoint]) -> Discovery:
            discovery = NatsDiscovery(bus, SystemClock())
            tasks.extend(group.create_task(discovery.register(endpoint)) for endpoint in endpoints)
            async with asyncio.timeout(10):
                while not all([endpoint in await discovery.endpoints(endpoint.kind) for endpoint in endpoints]):
                    await asyncio.sleep(0.01)
            return discovery

        yield register
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def connected(bus: Bus) -> AsyncIterator[None]:
    await bus.start()
    try:
        yield
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
