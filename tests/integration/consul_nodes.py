"""What the tests of Consul share: a node that registers or follows, and waiting for what is to come.

On real sockets, with two clocks: the server's decides when checks fail, the node's when the node looks after its
registration.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from adaptivegen.clock import Clock, ManualClock, SystemClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.consul import ConsulDiscovery, Pace
from adaptivegen.discovery.consul_agent import ConsulAgent
from adaptivegen.discovery.consul_service import ConsulOptions, service_of
from adaptivegen.errors import NodeUnavailable
from tests.consul_server import ConsulServer

EDGE = Endpoint("edge", "e1", http_url="http://127.0.0.1:8001", grpc_address="127.0.0.1:9001")
MOVED = Endpoint("edge", "e1", http_url="http://127.0.0.1:8002", grpc_address="127.0.0.1:9002")
OTHER = Endpoint("edge", "e2", http_url="http://127.0.0.1:8003")
ID = "adaptivegen.edge.e1"
QUICK = Pace(ttl_s=15, wait_s=30, rest_s=0.0, retry_s=0.01)
BEAT_S = 5.0


def passing_time(server: ConsulServer) -> ManualClock:
    assert isinstance(server.clock, ManualClock)
    return server.clock


def source(server: ConsulServer, clock: Clock | None = None, **options: Any) -> ConsulDiscovery:
    deadline_s = options.pop("deadline_s", 5.0)
    return ConsulDiscovery(
        clock or SystemClock(), url=server.url, options=ConsulOptions(**options), pace=QUICK, deadline_s=deadline_s
    )


async def until(holds: Callable[[], Awaitable[bool]], clock: ManualClock | None = None) -> None:
    """Wait for it; with a node's `clock`, let that node look after its registration meanwhile."""
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.01)
            if clock is not None:
                await clock.advance(BEAT_S)


async def until_listed(
    server: ConsulServer, *wanted: Endpoint, clock: ManualClock | None = None, token: str = ""
) -> None:
    discovery = source(server, token=token)

    async def listed() -> bool:
        try:
            return await discovery.endpoints("edge") == list(wanted)
        except NodeUnavailable:
            return False

    await until(listed, clock)


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[asyncio.Task[None]]:
    async def run() -> None:
        await work

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        yield task
        task.cancel()


@asynccontextmanager
async def following(discovery: ConsulDiscovery) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Follow edges, and wait until the list told last is one."""
    told: list[list[Endpoint]] = []

    async def tell(nodes: list[Endpoint]) -> None:
        told.append(nodes)

    async def wait_for(*wanted: Endpoint) -> None:
        async def last() -> bool:
            return bool(told) and told[-1] == list(wanted)

        await until(last)

    async with running(discovery.follow("edge", tell)):
        yield wait_for


async def dead(server: ConsulServer, endpoint: Endpoint) -> None:
    """Register a node that does nothing more, ever."""
    async with ConsulAgent(server.url, token="", tls=True, deadline_s=5) as agent:
        await agent.register(service_of(endpoint, ConsulOptions()))


async def beats(server: ConsulServer, clock: ManualClock) -> None:
    """Let the node say once that it lives."""
    before = server.beats

    async def heard() -> bool:
        return server.beats > before

    await until(heard, clock)


async def waits_with(server: ConsulServer, index: int, *, asked: int) -> None:
    async def waits() -> bool:
        return len(server.asked) >= asked and server.asked[-1][1] == index

    await until(waits)


async def said(lines: list[Any], words: str, clock: ManualClock | None = None) -> None:
    async def found() -> bool:
        return any(words in str(value) for line in lines for value in line.values())

    await until(found, clock)


async def held_by(server: ConsulServer, id_: str) -> bool:
    return id_ in server.registered
