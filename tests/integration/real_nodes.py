"""Whole services in the test's own loop, with the real broker, gRPC and models: edge, scheduler, worker, cache."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.rpc.admin_rows import LineChangeInfo, LineInfo
from cdn_cache.service import serve as serve_cache
from cdn_cache.settings import CacheSettings
from cli.system.ports import free_ports
from core_cloud.service import MODEL_CHILD as CLOUD_CHILD
from core_cloud.service import serve as serve_worker
from core_cloud.settings import WorkerSettings
from edge_node.service import MODEL_CHILD as DRAFT_CHILD
from edge_node.service import serve as serve_edge
from edge_node.settings import EdgeSettings
from scheduler.service import serve as serve_scheduler
from scheduler.settings import SchedulerSettings

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


class Rolling(Protocol):
    """A system in which a version is rolled out."""

    async def line(self) -> LineInfo: ...

    async def last(self) -> LineChangeInfo: ...


async def in_canary(system: Rolling, version: str, *, who: str) -> None:
    """Return once it is tried on sessions, before which who is named must have it."""

    async def reached() -> bool | None:
        line = await system.line()
        assert line.candidate == version, await system.last()
        return True if line.phase == "canary" else None

    await until(f"{who} having it", reached)


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
    serve: Callable[[asyncio.Event], Awaitable[None]], found: Callable[[], Awaitable[Endpoint]]
) -> AsyncIterator[Node]:
    """A service from when it is `found` to its end; an error of its own ends the block."""
    stop = asyncio.Event()

    async def run() -> None:
        await serve(stop)

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(run())
        try:
            yield Node(await found(), stop, serving)
        finally:
            stop.set()


def on_loopback(nats_url: str, folder: Path, node_id: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Settings of a service of a test."""
    common = {"node_id": node_id, "auth": "loopback", "nats_urls": nats_url, "store_url": f"file://{folder / 'store'}"}
    return {**common, **changes}


@asynccontextmanager
async def edge(
    nats_url: str, folder: Path, *, child: Sequence[str] = DRAFT_CHILD, **changes: Any
) -> AsyncIterator[Node]:
    """An edge, by default with the real draft model, which registers with the broker."""
    settings = EdgeSettings(**on_loopback(nats_url, folder, "edge-1", changes))
    async with service(
        lambda stop: serve_edge(settings, clock=CLOCK, rng=random.Random(5), stop=stop, child=child),
        lambda: registered(nats_url, "edge", settings.node_id),
    ) as node:
        yield node


@asynccontextmanager
async def listed_edge(nats_url: str, folder: Path, list_: Path, **changes: Any) -> AsyncIterator[Node]:
    """An edge that finds nodes in the file `list_` and registers nowhere: its ports are chosen before."""
    http, grpc = free_ports(2)
    endpoint = Endpoint("edge", "edge-1", http_url=f"http://127.0.0.1:{http}", grpc_address=f"127.0.0.1:{grpc}")
    own = {"discovery": f"static:{list_}", "http_port": http, "grpc_port": grpc, **changes}
    settings = EdgeSettings(**on_loopback(nats_url, folder, "edge-1", own))
    async with service(
        lambda stop: serve_edge(settings, clock=CLOCK, rng=random.Random(5), stop=stop), lambda: answering(endpoint)
    ) as node:
        yield node


@asynccontextmanager
async def scheduler(nats_url: str, folder: Path, **changes: Any) -> AsyncIterator[Node]:
    """A scheduler with the real cards, which registers with the broker."""
    settings = SchedulerSettings(**on_loopback(nats_url, folder, "scheduler-1", changes))
    cards = settings.library().cards()
    async with service(
        lambda stop: serve_scheduler(settings, cards=cards, clock=CLOCK, rng=random.Random(6), stop=stop),
        lambda: registered(nats_url, "scheduler", settings.node_id),
    ) as node:
        yield node


@asynccontextmanager
async def worker(
    nats_url: str, folder: Path, *, child: Sequence[str] = CLOUD_CHILD, **changes: Any
) -> AsyncIterator[Node]:
    """A worker, by default with the real cloud model, which registers with the broker."""
    settings = WorkerSettings(**on_loopback(nats_url, folder, "worker-1", changes))
    async with service(
        lambda stop: serve_worker(settings, clock=CLOCK, rng=random.Random(settings.node_id), stop=stop, child=child),
        lambda: registered(nats_url, "worker", settings.node_id),
    ) as node:
        yield node


@asynccontextmanager
async def cache(nats_url: str, folder: Path, **changes: Any) -> AsyncIterator[Node]:
    """A media cache with a port of its own; it is there when it answers."""
    (http,) = free_ports(1)
    endpoint = Endpoint("cache", "cache-1", http_url=f"http://127.0.0.1:{http}")
    own = {"http_port": http, "dir": folder / "cache", **changes}
    settings = CacheSettings(**on_loopback(nats_url, folder, "cache-1", own))
    async with service(lambda stop: serve_cache(settings, clock=CLOCK, stop=stop), lambda: answering(endpoint)) as node:
        yield node


async def answering(endpoint: Endpoint) -> Endpoint:
    """The endpoint, once it says that it is ready."""

    async def ask() -> Endpoint | None:
        try:
            async with httpx.AsyncClient(timeout=5) as client:
                return endpoint if (await client.get(f"{endpoint.http_url}/readyz")).is_success else None
        except httpx.HTTPError:
            return None

    return await until(f"{endpoint.node_id} being ready", ask)
