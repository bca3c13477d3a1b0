"""A whole scheduler in this process, nodes that send heartbeats to it, and the jobs' store, for tests."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

from prometheus_client import CollectorRegistry

from adaptivegen.blob.store import open_store
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import Unavailable
from adaptivegen.heartbeat import Heartbeat
from adaptivegen.ids import new_video_id
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.local_only import NAMES
from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Decision, PlacementQuery
from adaptivegen.request import GenerationRequest
from adaptivegen.roles import everybody_admin
from adaptivegen.rpc.admin import AdminBackend
from adaptivegen.rpc.admin_client import AdminClient
from adaptivegen.rpc.channel import ClientTls
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.serving import HttpServer, ServingLimits, bind
from scheduler.api.http import AdminHttp
from scheduler.api.stream import Streams
from scheduler.http import HttpApi
from scheduler.service import serve
from scheduler.settings import SchedulerSettings
from scheduler.snapshot import Snapshot
from tests.unit.scheduler.builders import cards, place, query, view

PATIENCE_S = 20.0
CLOCK = SystemClock()
RNG = random.Random(20)
Found = TypeVar("Found")


def video_id() -> str:
    """A new one."""
    return new_video_id(now_ns=CLOCK.now_ns(), rng=RNG)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(what: str, ask: Callable[[], Awaitable[Found | None]]) -> Found:
    """Ask until the answer is something, not reaching anyone included; fails after `PATIENCE_S`."""
    last: Exception | None = None
    for _ in range(round(PATIENCE_S / 0.1)):
        try:
            answer = await ask()
        except Unavailable as exc:
            answer, last = None, exc
        if answer is not None:
            return answer
        await CLOCK.sleep(0.1)
    raise AssertionError(f"{what} did not happen within {PATIENCE_S:g} s ({last})")


class Running:
    """One scheduler and clients to it."""

    def __init__(self, address: str, tls: ClientTls | None = None) -> None:
        self.address = address
        self.admin = AdminClient(address, tls=tls)
        self.placer = PlacementClient([address], clock=CLOCK, budget_s=5.0, tls=tls)

    async def states(self) -> dict[str, str]:
        return {node.node_id: node.state for node in await self.admin.nodes()}

    async def place(self, asked: PlacementQuery | None = None) -> Decision:
        return await self.placer.place(asked or query(job_id=video_id()))

    async def sees(self, **states: str) -> None:
        """Wait until these nodes (with _ for -) are in these states."""
        wanted = {node_id.replace("_", "-"): state for node_id, state in states.items()}

        async def ask() -> bool | None:
            seen = await self.states()
            return True if wanted.items() <= seen.items() else None

        await until(f"seeing {wanted}", ask)

    async def close(self) -> None:
        await self.admin.close()
        await self.placer.close()


@asynccontextmanager
async def scheduler(
    nats_url: str, folder: Path, *, port: int = 0, tls: ClientTls | None = None, **changes: object
) -> AsyncIterator[Running]:
    """A scheduler in this process, serving; tls: what its clients show."""
    port = port or free_port()
    values: dict[str, object] = {
        "node_id": "scheduler-1",
        "nats_urls": nats_url,
        "store_url": f"file://{folder / 'store'}",
        "auth": "loopback",
        "grpc_port": port,
        "drain_grace_s": 1.0,
        "log_level": "error",
    }
    settings = SchedulerSettings.model_validate({**values, **changes})
    stop = asyncio.Event()
    running = Running(f"127.0.0.1:{port}", tls)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(settings, cards=cards(), clock=CLOCK, rng=random.Random(3), stop=stop))
        try:
            await until("serving", running.states)
            yield running
        finally:
            await running.close()
            stop.set()


@asynccontextmanager
async def pushing(take: Callable[[], Awaitable[Snapshot]]) -> AsyncIterator[tuple[Streams, int]]:
    """The dashboard and its stream over HTTP, of such snapshots in place of a scheduler's; the streams, and the port.

    The first snapshot of each stream comes by itself, the others by `Streams.push`.
    """
    streams = Streams(take, clock=CLOCK)
    routes = AdminHttp(cast(AdminBackend, None), everybody_admin(), streams).routes()
    api = HttpApi(registry=CollectorRegistry(), ready=lambda: True, local_names=NAMES, beside=routes)
    listener = bind("127.0.0.1", 0)
    web = HttpServer(api.application(), listener, cert=None, key=None, limits=ServingLimits(max_connections=10))
    async with asyncio.TaskGroup() as group:
        group.create_task(web.run())
        try:
            yield streams, listener.getsockname()[1]
        finally:
            web.stop(within_s=1.0)


@asynccontextmanager
async def fleet(nats_url: str, *reports: NodeReport) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """Nodes that send heartbeats; cancelling a node's task silences it."""
    buses = [NatsBus([nats_url], name=sent.node_id) for sent in reports]
    async with asyncio.TaskGroup() as group:
        tasks = {}
        for sent, bus in zip(reports, buses, strict=True):
            beating = Heartbeat(bus, CLOCK, lambda sent=sent: sent)  # type: ignore[misc]
            tasks[sent.node_id] = group.create_task(beating.run())
        try:
            yield tasks
        finally:
            for task in tasks.values():
                task.cancel()
    for bus in buses:
        await bus.close()


@asynccontextmanager
async def job_store(nats_url: str, folder: Path) -> AsyncIterator[JobStore]:
    """The store that edges and workers would write."""
    bus = NatsBus([nats_url], name="edge")
    blob = open_store(f"file://{folder / 'store'}")
    yield JobStore(blob=blob, bus=bus, clock=CLOCK)
    await bus.close()
    await blob.close()


def new_spec(tenant: str = "local", *, later_s: int = 0) -> JobSpec:
    job_id = new_video_id(now_ns=CLOCK.now_ns() + later_s * 10**9, rng=RNG)
    return JobSpec(
        id=job_id,
        tenant=tenant,
        created_at_ns=CLOCK.now_ns(),
        request=GenerationRequest(
            prompt="a red circle",
            model="pocket-cloud",
            width=256,
            height=256,
            seconds=2.0,
            fps=12,
            frames=24,
            steps=None,
            guidance=1.0,
            seed=7,
            intent="render",
        ),
        content_key="0" * 64,
        draft_model="pocket-draft",
        cloud_model="pocket-cloud",
        draft_steps=4,
        decision=place(view(), query(job_id=job_id)),
        edge_grpc_address="127.0.0.1:1",
        want_final=True,
    )
