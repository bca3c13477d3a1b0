"""The application service of one edge on memory parts, with a model and a scheduler that do as told."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock, SystemClock
from adaptivegen.desired import DesiredModels
from adaptivegen.errors import (
    AdaptiveGenError,
)
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.media.upload import UploadLimits
from adaptivegen.models.registry import ModelLibrary, load_card
from adaptivegen.placement import Decision, PlacementQuery
from adaptivegen.rpc.draft import DraftClient
from edge_node.draft.desk import DraftDesk
from edge_node.draft.places import DraftPlaces
from edge_node.hub import EventHub
from edge_node.quotas import Quotas
from edge_node.sides import Partition, Sides
from edge_node.spool.known import Known
from edge_node.spool.reach import Reach
from edge_node.spool.rules import SpoolLimits
from edge_node.spool.spool import Spool
from edge_node.versions import Versions
from edge_node.videos import EdgeIdentity, Videos
from tests.draft_models import draft_models

BODY = {"prompt": "a red circle moves left over a sunset sky", "seed": 7}


class HeldModel:
    """Drafts that begin and wait."""

    ready = True
    busy = False

    def __init__(self) -> None:
        self.waiting: Counter[str] = Counter()
        self.started: list[str] = []
        self.go = asyncio.Event()

    @property
    def queued(self) -> int:
        return self.waiting.total()

    async def generate(
        self,
        command: GenerateCommand,
        start_mp4: bytes | None,
        on_step: Callable[[Step], None],
        *,
        tenant: str = "",
        yields_s: float = 0.0,
        on_begin: Callable[[], None] | None = None,
    ) -> Generated:
        self.started.append(command.request_id)
        await self.go.wait()
        return Generated(mp4=b"draft", width=128, height=128, frames=24, generate_ms=1.0, encode_ms=1.0)


class ScriptedPlacer:
    """A scheduler that answers as told; by default with a refine here."""

    def __init__(self) -> None:
        self.error: AdaptiveGenError | None = None
        self.changes: dict[str, Any] = {}
        self.queries: list[PlacementQuery] = []
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def place(self, query: PlacementQuery) -> Decision:
        self.queries.append(query)
        self.asked.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        decision = Decision(
            job_id=query.job_id,
            plan="hit" if query.content_known else "refine",
            edge_id=query.edge_id,
            pool="default",
            final_steps=4,
            refine_t0=0.5,
            decided_by="scheduler-1",
            decided_at_ns=1,
            reasons=("because",),
        )
        return decision.model_copy(update=self.changes)


class Edge:
    """The application service of one edge on memory parts."""

    def __init__(self, spool: Spool | None = None, known: Known | None = None, before: "Edge | None" = None) -> None:
        """With a spool it has a partition mode. before: an earlier life, whose centre it has."""
        self.clock = clock = SystemClock()
        self.bus: MemoryBus = before.bus if before is not None else MemoryBus(clock)
        blob: BlobStore = before.jobs.blob if before is not None else open_store("memory://")
        self.jobs: JobStore = JobStore(blob=blob, bus=self.bus, clock=clock)
        self.model = HeldModel()
        self.placer = ScriptedPlacer()
        self.accepted: list[str] = []
        self.quotas = Quotas()
        self.desired = DesiredModels(self.bus, clock)
        self.partition = None
        self.reach_clock = ManualClock()
        if spool is not None and known is not None:
            reach = Reach(self.jobs, prove=nothing, node_id="edge-1", clock=self.reach_clock, budget_s=5.0)
            self.partition = Partition(spool, reach, known)
        self.sides = Sides(self.jobs, self.partition)
        self.hub = EventHub(node_id="edge-1", jobs=self.sides, clock=clock)
        self.drafts = draft_models(load_card("pocket-draft"), self.model, clock=clock, desired=self.desired)
        self.desk = DraftDesk(
            node_id="edge-1",
            places=DraftPlaces(
                node_id="edge-1",
                models=self.drafts,
                peers=DraftClient(tls=None),
                clock=clock,
                attempted=lambda attempt: None,
            ),
            jobs=self.sides,
            hub=self.hub,
            clock=clock,
            observe=lambda times: None,
            shelter=partial(self.sides.shelter, note="sheltered"),
        )
        self.videos = Videos(
            identity=EdgeIdentity("edge-1", "127.0.0.1:1", "default", "pocket-cloud"),
            jobs=self.jobs,
            hub=self.hub,
            desk=self.desk,
            versions=Versions(self.desired, ModelLibrary()),
            drafts=self.drafts,
            placer=self.placer,
            clock=clock,
            rng=random.Random(1 if before is None else 2),
            max_waiting_drafts=8,
            borrows=True,
            quotas=self.quotas,
            upload_limits=UploadLimits(max_bytes=1000),
            on_accepted=lambda record, decision, fresh: self.accepted.append(record.id),
            partition=self.partition,
        )

    async def create(self, key: str | None = "k", **changes: object) -> JobRecord:
        return await self.videos.create("t", {**BODY, **changes}, upload=None, idempotency_key=key)

    async def queued(self) -> list[str]:
        queue = await self.bus.work_queue("default", ack_wait_s=30)
        found = []
        while (delivery := await queue.pull(timeout_s=0)) is not None:
            found.append(JobMessage.decode(delivery.data).id)
        return found

    async def specs(self) -> list[str]:
        return [job_id async for _, job_id in self.jobs.specs()]

    async def decided_by(self, record: JobRecord) -> str:
        return (await self.jobs.spec("t", record.id)).decision.decided_by


async def nothing() -> None:
    """There is nothing to prove."""


@asynccontextmanager
async def edge(spool: Path | None = None, *, before: Edge | None = None) -> AsyncIterator[Edge]:
    """One edge; with a spool in the folder, if one is given. before: its earlier life, whose centre it has."""
    if spool is None:
        made = Edge(before=before)
    else:
        held = Spool(spool, limits=SpoolLimits(max_jobs=4, max_bytes=1024**3), clock=SystemClock())
        await held.open(random.Random(2))
        known = Known(spool / "known", max_bytes=1024**2)
        await known.open()
        made = Edge(held, known, before)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks = [group.create_task(made.hub.run()), group.create_task(made.desk.run())]
        await asyncio.sleep(0)
        yield made
        for task in tasks:
            assert not task.done()
            task.cancel()
    if made.partition is not None:
        await made.partition.spool.close()
