"""Whole services in the test's own loop, with the real broker, gRPC and models: an edge, and what it stands on."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.nats_kv import NatsDiscovery
from edge_node.service import serve as serve_edge
from edge_node.settings import EdgeSettings

CLOCK = SystemClock()
PATIENCE_S = 60.0
Found = TypeVar("Found")


@dataclass(slots=True)
class Node:
    """A running service: where it is, how to end it, and its end."""

    endpoint: Endpoint
    stop: asyncio.Event
    serving: asyncio.Task[None]

    @property
    def http(self) -> str:
        return self.endpoint.http_url or ""

    @property
    def grpc(self) -> str:
        return self.endpoint.grpc_address or ""


async def until(what: str, ask: Callable[[], Awaitable[Found | None]]) -> Found:
    """The first answer that is something; fails after `PATIENCE_S`."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await ask()) is None:
                await asyncio.sleep(0.05)
            return answer
    except TimeoutError:
        raise AssertionError(f"{what}: not within {PATIENCE_S:g} s") from None


@asynccontextmanager
async def broker(nats_url: str) -> AsyncIterator[NatsBus]:
    """A connection of the test's own."""
    bus = NatsBus([nats_url], name="test")
    await bus.start()
    try:
        yield bus
    finally:
        await bus.close()


async def registered(nats_url: str, kind: str, node_id: str) -> Endpoint:
    """The endpoint of a node, once it has registered with the broker."""
    async with broker(nats_url) as bus:
        discovery = NatsDiscovery(bus, CLOCK)

        async def look() -> Endpoint | None:
            return next((found for found in await discovery.endpoints(kind) if found.node_id == node_id), None)

        return await until(f"{node_id} being registered", look)


@asynccontextmanager
async def service(
    serve: Callable[[asyncio.Event], Awaitable[None]], nats_url: str, kind: str, node_id: str
) -> AsyncIterator[Node]:
    """A service from its registration to its end; an error of its own ends the block."""
    stop = asyncio.Event()

    async def run() -> None:
        await serve(stop)

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(run())
        try:
            yield Node(await registered(nats_url, kind, node_id), stop, serving)
        finally:
            stop.set()


@asynccontextmanager
async def edge(nats_url: str, folder: Path, **changes: Any) -> AsyncIterator[Node]:
    """An edge with the real draft model, on loopback."""
    values = {"node_id": "edge-1", "auth": "loopback", "nats_urls": nats_url, "store_url": f"file://{folder / 'store'}"}
    settings = EdgeSettings(**{**values, **changes})
    async with service(
        lambda stop: serve_edge(settings, clock=CLOCK, rng=random.Random(5), stop=stop),
        nats_url,
        "edge",
        settings.node_id,
    ) as node:
        yield node
