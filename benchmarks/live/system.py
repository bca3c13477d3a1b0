"""The real system on one machine, as processes: broker, two workers, two edges, and a scheduler that comes and goes.

Edges and scheduler are known to others by addresses of their own on loopback (127.0.0.x, which Linux has), where the
shaped links listen. The object store is a local folder, and the broker is reached directly.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from adaptivegen.clock import Clock
from adaptivegen.errors import NodeUnavailable
from benchmarks.live.cards import CLOUD, DRAFT, write_cards
from benchmarks.live.conduct import Spell, write_conduct
from benchmarks.live.links import Link, shaped
from benchmarks.live.load import EDGES, WORKERS
from benchmarks.live.node import CARDS, conduct_file
from cli.system.broker import configuration, find_binary
from cli.system.layout import HOST, Probe, ProcessPlan
from cli.system.ports import free_ports
from cli.system.process import Child
from cli.system.readiness import is_ready

ROOT = Path(__file__).parents[2]
READY_WITHIN_S, LOOK_S, GRACE_S = 60.0, 0.05, 4.0
SCHEDULER, TENANT = "scheduler-1", "local"
SEEN_AS = {"edge-1": "127.0.0.11", "edge-2": "127.0.0.12", SCHEDULER: "127.0.0.20"}


@dataclass(frozen=True, slots=True)
class Links:
    """One way each. edges: to an edge from other edges and workers."""

    clients: Link
    edges: Link
    scheduler: Link


LINKS = Links(clients=Link(0.020, 0.015), edges=Link(0.008, 0.008), scheduler=Link(0.004, 0.004))


@dataclass(frozen=True, slots=True)
class Ports:
    """Of all processes."""

    broker: int
    scheduler: int
    scheduler_http: int
    workers: Mapping[str, int]
    http: Mapping[str, int]
    grpc: Mapping[str, int]


def choose_ports() -> Ports:
    """Free ones."""
    broker, scheduler, scheduler_http, *rest = free_ports(3 + len(WORKERS) + 2 * len(EDGES))
    workers, http, grpc = rest[:2], rest[2:4], rest[4:6]
    return Ports(
        broker,
        scheduler,
        scheduler_http,
        dict(zip(WORKERS, workers, strict=True)),
        dict(zip(EDGES, http, strict=True)),
        dict(zip(EDGES, grpc, strict=True)),
    )


class LiveSystem:
    """Built by `running`; everything in it is ready but the scheduler."""

    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self.folder = folder
        self.ports = choose_ports()
        self.clock = clock
        self._password = secrets.token_hex(16)
        self._children: list[Child] = []

    @property
    def store_url(self) -> str:
        """Where jobs and media are."""
        return f"file://{self.folder / 'store'}"

    def edge_url(self, edge_id: str) -> str:
        """Where clients reach an edge, by their link."""
        return f"http://{SEEN_AS[edge_id]}:{self.ports.http[edge_id]}"

    def behave(self, spells: Mapping[str, list[Spell]]) -> None:
        """Let the nodes' models be slow or fail."""
        for node_id, own in spells.items():
            write_conduct(conduct_file(self.folder, node_id), own)

    def cpu_s(self) -> float:
        """CPU seconds that this process and all others of the system have used, those that have ended included."""
        mine = psutil.Process()
        ended = mine.cpu_times()
        used = ended.children_user + ended.children_system
        for process in (mine, *mine.children(recursive=True)):
            with suppress(psutil.Error):  # it has ended
                times = process.cpu_times()
                used += times.user + times.system
        return float(used)

    async def start(self) -> None:
        """Broker, workers, edges. Raises NodeUnavailable."""
        write_cards(self.folder / CARDS)
        self.behave({name: [] for name in (*EDGES, *WORKERS)})
        (self.folder / "logs").mkdir()
        config = self.folder / "nats.conf"
        config.write_text(
            configuration(port=self.ports.broker, store_dir=self.folder / "broker", password=self._password)
        )
        binary = find_binary(None, "")
        broker = ProcessPlan("broker", (str(binary), "-c", str(config)), _environment(), "tcp", self._at("broker"), 0)
        await self._up(broker)
        for name in WORKERS:
            await self._up(self._worker(name))
        for name in EDGES:
            await self._up(self._edge(name))

    async def stop(self) -> None:
        """End everything, the last one first."""
        for child in reversed(self._children):
            await child.end(grace_s=GRACE_S)

    @asynccontextmanager
    async def scheduler(self, placing: str, log: Path, **settings: str) -> AsyncIterator[None]:
        """A scheduler that has learned nothing yet, inside the block; log: a folder for its decisions."""
        own = {"GRPC_PORT": f"{self.ports.scheduler}", "HTTP_PORT": f"{self.ports.scheduler_http}"}
        own |= {"PLACING": placing, "DECISION_LOG": f"{log}", **settings}
        child = await self._up(self._plan("scheduler", SCHEDULER, "grpc", self.ports.scheduler, own))
        try:
            yield
        finally:
            await child.end(grace_s=GRACE_S)
            self._children.remove(child)

    def _at(self, name: str) -> str:
        return f"{HOST}:{getattr(self.ports, name)}"

    def _worker(self, name: str) -> ProcessPlan:
        own = {"MODEL": CLOUD, "BACKEND": "onnx", "THREADS": "1", "GRPC_PORT": f"{self.ports.workers[name]}"}
        own |= {"SCHEDULER_ADDRESSES": f"{SEEN_AS[SCHEDULER]}:{self.ports.scheduler}"}
        return self._plan("worker", name, "grpc", self.ports.workers[name], own)

    def _edge(self, name: str) -> ProcessPlan:
        own = {
            "ADVERTISE_HOST": SEEN_AS[name],
            "HTTP_PORT": f"{self.ports.http[name]}",
            "GRPC_PORT": f"{self.ports.grpc[name]}",
            "SCHEDULER_ADDRESSES": f"{SEEN_AS[SCHEDULER]}:{self.ports.scheduler}",
            "DRAFT_MODEL": DRAFT,
            "CLOUD_MODEL": CLOUD,
            "THREADS": "1",
            "MAX_WAITING_DRAFTS": "64",
            "PLACE_BUDGET_S": "0.5",
        }
        return self._plan("edge", name, "http", self.ports.http[name], own)

    def _plan(self, kind: str, name: str, probe: Probe, port: int, own: Mapping[str, str]) -> ProcessPlan:
        common = {
            "NODE_ID": name,
            "HOST": HOST,
            "AUTH": "loopback",
            "NATS_URLS": f"nats://adaptivegen:{self._password}@{self._at('broker')}",
            "STORE_URL": self.store_url,
            "LOG_LEVEL": "warning",
            "DRAIN_GRACE_S": "2",
            "MODELS_DIR": str(self.folder / CARDS),
        }
        settings = {f"ADAPTIVEGEN_{kind.upper()}_{key}": value for key, value in {**common, **own}.items()}
        argv = (sys.executable, "-m", "benchmarks.live.node", kind, str(self.folder))
        return ProcessPlan(name, argv, {**_environment(), **settings}, probe, f"{HOST}:{port}", 1)

    async def _up(self, plan: ProcessPlan) -> Child:
        """Start a process and wait until it is ready; raises NodeUnavailable."""
        child = Child(plan, self.folder / "logs" / f"{plan.name}.log")
        await child.start()
        self._children.append(child)
        until_s = self.clock.monotonic_s() + READY_WITHIN_S
        while not await is_ready(plan):
            if child.status is not None or self.clock.monotonic_s() > until_s:
                raise NodeUnavailable(f"{plan.name} did not become ready; its log: {child.log.read_text()[-2000:]}")
            await self.clock.sleep(LOOK_S)
        return child


def _environment() -> dict[str, str]:
    """This process's, so that the children find the same Python and this package."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "GRPC_ENABLE_FORK_SUPPORT": "0"}


@asynccontextmanager
async def running(folder: Path, links: Links, *, clock: Clock, rng: random.Random) -> AsyncIterator[LiveSystem]:
    """A system behind its links, inside the block."""
    system = LiveSystem(folder, clock=clock)
    async with AsyncExitStack() as stack:
        ports = system.ports
        doors = [(SCHEDULER, ports.scheduler, links.scheduler)]
        doors += [(name, ports.http[name], links.clients) for name in EDGES]
        doors += [(name, ports.grpc[name], links.edges) for name in EDGES]
        for name, port, link in doors:
            await stack.enter_async_context(shaped((SEEN_AS[name], port), (HOST, port), link, clock=clock, rng=rng))
        stack.push_async_callback(system.stop)
        await system.start()
        yield system
