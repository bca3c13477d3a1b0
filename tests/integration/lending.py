"""Two edges over gRPC, one of which lends drafts to the other; their models are stood in for."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import SystemClock
from adaptivegen.errors import NotFound
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.placement import Attempt, DraftPlace
from adaptivegen.rpc.draft import DraftClient, DraftOrder, DraftServicer, Lent, MadeDraft
from adaptivegen.rpc.server import RpcServer
from edge_node.draft.lend import Lending
from edge_node.draft.places import DraftPlaces
from tests.cards import draft_card
from tests.draft_models import draft_models
from tests.jobs import make_spec

CARD = draft_card()

CLOCK = SystemClock()

NEVER_S = 1000.0

BIG = random.Random(1).randbytes(3 * 256 * 1024 + 5)  # more than one chunk


class Model:
    """Stands where an edge's runner does: begins and ends when it is let, and knows whether it was stopped."""

    ready, busy = True, False

    def __init__(self, mp4: bytes) -> None:
        self.mp4 = mp4
        self.has_turn, self.may_begin, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.has_turn.set()
        self.may_begin.set()
        self.may_end.set()
        self.asked, self.stopped = asyncio.Event(), asyncio.Event()
        self.commands: list[GenerateCommand] = []
        self.error: Exception | None = None
        self.stubborn = False
        self.waiting: Counter[str] = Counter()
        self.shape = {"width": 128, "height": 128, "frames": 24}
        self.generate_ms = 5.0

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
        self.commands.append(command)
        self.asked.set()
        try:
            await self.has_turn.wait()
            if on_begin is not None:
                on_begin()
            await self.may_begin.wait()
            on_step(Step(step=1, steps=2, stage="base", look_jpeg=b"look of " + self.mp4[:4]))
            await self.may_end.wait()
        except asyncio.CancelledError:
            if self.stubborn:
                await asyncio.sleep(0.5)
            self.stopped.set()
            raise
        if self.error is not None:
            raise self.error
        return Generated(self.mp4, **self.shape, generate_ms=self.generate_ms, encode_ms=1.0, familiarity=0.9)


class Pair:
    """Edge `home` that asks, edge `peer` that lends, on one store."""

    def __init__(
        self, jobs: JobStore, peer_address: str, home: Model, peer: Model, *, group: asyncio.TaskGroup
    ) -> None:
        self.jobs, self.home, self.peer, self.group = jobs, home, peer, group
        self.address = peer_address
        self.client = DraftClient(tls=None)
        self.attempts: list[Attempt] = []
        self.looks: list[Step] = []
        self.places = DraftPlaces(
            node_id="edge-1",
            models=draft_models(CARD, home, clock=CLOCK),
            peers=self.client,
            clock=CLOCK,
            attempted=self.attempts.append,
        )

    async def spec(
        self, *, at: str = "edge-2", backup: str = "", after_s: float = NEVER_S, tied_s: float = 0.0, **changes: Any
    ) -> JobSpec:
        """A stored job that is to be drafted there."""
        spec = make_spec()
        place = DraftPlace(edge_id="edge-2", address=changes.pop("address", self.address), draft_s=0.5, load_s=0.0)
        decision = spec.decision.model_copy(
            update={
                "draft_edge_id": "" if at == "edge-1" else at,
                "backup_edge_id": backup,
                "backup_after_s": after_s,
                "tied_after_s": tied_s,
                "draft_places": (place,),
            }
        )
        spec = spec.model_copy(update={"decision": decision, **changes})
        return (await self.jobs.submit(spec))[0]

    async def make(self, spec: JobSpec) -> tuple[bytes, str]:
        made = await self.places.make(spec, None, self.looks.append, group=self.group)
        return made.generated.mp4, made.edge_id

    async def borrow(self, spec: JobSpec, **changes: str) -> Lent:
        values = {"tenant": spec.tenant, "job_id": spec.id, "token": spec.draft_token, "model_digest": CARD.digest}
        order = DraftOrder(**{**values, **changes})
        return await self.client.borrow(self.address, order, lambda step: None, deadline_s=20.0)


@asynccontextmanager
async def silent_edge() -> AsyncIterator[str]:
    """The address of one that takes every connection and says nothing."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def pair(*, accepting: Callable[[], bool] = lambda: True) -> AsyncIterator[Pair]:
    jobs = JobStore(blob=open_store("memory://"), bus=MemoryBus(CLOCK), clock=CLOCK)
    home, peer = Model(b"home's draft"), Model(BIG)
    lending = Lending(
        node_id="edge-2",
        jobs=jobs,
        models=draft_models(CARD, peer, clock=CLOCK),
        clock=CLOCK,
        max_waiting=8,
        accepting=accepting,
    )
    server = RpcServer(rng=random.Random(1))
    DraftServicer(no_draft, lending.make, SystemClock()).add_to(server)
    port = server.reserve(host="127.0.0.1", port=0, tls=None)
    await server.start()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(lending.run())
        await asyncio.sleep(0)
        made = Pair(jobs, f"127.0.0.1:{port}", home, peer, group=group)
        try:
            yield made
            assert not running.done()
        finally:
            await made.client.close()
            await server.drain(grace_s=0.0)
            running.cancel()


async def no_draft(tenant: str, job_id: str, token: str) -> MadeDraft:
    raise NotFound("no draft here")
