"""One worker on memory parts and virtual time, with a scripted model and parts that fail as told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import WorkQueue
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import Clock, ManualClock
from adaptivegen.errors import ModelNotFound
from adaptivegen.generation.kept import ModelSet
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.models.card import ModelCard
from adaptivegen.ways import Transfers
from core_cloud.drafts import DraftSource
from core_cloud.turns import InOrder, Turns
from core_cloud.worker import Worker
from tests.cards import cloud_card
from tests.jobs import JOB_ID, draft_manifest, make_spec

LEASE_S = 30.0


class ScriptedRunner:
    """A runner that does what the test says: answers, raises, or works until it is let go or stopped."""

    ready = True

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.commands: list[tuple[GenerateCommand, bytes | None]] = []
        self.running = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self.stopped = 0
        self.familiarity: float | None = None
        self.clock: Clock | None = None  # of the first step, where that takes any time
        self.pace_s = 0.0

    async def generate(
        self, command: GenerateCommand, start_mp4: bytes | None, on_step: Callable[[Step], None]
    ) -> Generated:
        self.commands.append((command, start_mp4))
        if self.clock is not None:
            await self.clock.sleep(self.pace_s)
        on_step(Step(step=1, steps=command.request.steps, stage="base"))
        self.running.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.errors:
            raise self.errors.pop(0)
        return Generated(
            mp4=b"final clip",
            width=256,
            height=256,
            frames=24,
            generate_ms=1.0,
            encode_ms=1.0,
            familiarity=self.familiarity,
        )

    async def cancel(self, request_id: str) -> None:
        raise AssertionError(f"nobody cancels by id here: {request_id}")


@dataclass
class Cloud:
    """One worker on memory parts."""

    clock: ManualClock
    bus: MemoryBus
    blob: BlobStore
    jobs: JobStore
    runner: ScriptedRunner
    worker: Worker
    more: list[ScriptedRunner]
    transfers: Transfers
    loop: asyncio.Task[None] = field(init=False)

    def twin(self) -> Worker:
        """Another worker that was given the same name by mistake."""
        return make_worker("2", self.jobs, self.bus, self.runner, self.clock)

    async def record(self) -> JobRecord:
        return await self.jobs.find("t", JOB_ID)

    async def queue(self) -> WorkQueue:
        return await self.bus.work_queue("default", ack_wait_s=LEASE_S)

    async def until(self, reached: Callable[[], Awaitable[bool]], *, tick_s: float = 0.05) -> None:
        """Let time pass until `reached`."""
        async with asyncio.timeout(20):
            while not await reached():
                await self.clock.advance(tick_s)
                await asyncio.sleep(0.001)

    async def until_ended(self) -> JobRecord:
        async def ended() -> bool:
            return (await self.record()).ended and await self.settled()

        await self.until(ended)
        return await self.record()

    async def settled(self) -> bool:
        depth = await (await self.queue()).depth()
        return depth.pending == depth.in_flight == 0

    async def put_draft(self, mp4: bytes) -> None:
        await self.blob.put(draft_manifest().media.key, mp4)
        await self.jobs.store_draft("t", JOB_ID, draft_manifest())


def make_worker(
    incarnation: str,
    jobs: JobStore,
    bus: Any,
    runner: ScriptedRunner,
    clock: ManualClock,
    *,
    node_id: str = "w1",
    card: ModelCard | None = None,
    turns: Turns | None = None,
    transfers: Transfers | None = None,
    ahead_s: float = 0.3,
    more: Sequence[tuple[ModelCard, ScriptedRunner]] = (),
) -> Worker:
    transfers = transfers if transfers is not None else Transfers()
    return Worker(
        node_id=node_id,
        jobs=jobs,
        bus=bus,
        models=kept_models(card or cloud_card(), runner, *more, clock=clock),
        line=(card or cloud_card()).name,
        drafts=DraftSource(jobs=jobs, wait_s=1.0, tls=None, clock=clock, transfers=transfers),
        clock=clock,
        pool="default",
        lease_s=LEASE_S,
        ahead_s=ahead_s,
        incarnation=incarnation,
        turns=turns or InOrder(),
        transfers=transfers,
    )


def kept_models(card: ModelCard, runner: Any, *more: tuple[ModelCard, Any], clock: Clock) -> ModelSet:
    """Versions that are loaded already, the first of which serves."""

    def none_else(name: str) -> ModelCard:
        raise ModelNotFound(f"no model {name!r}", param="model")

    def no_process(card: ModelCard) -> ModelRunner:
        raise AssertionError(f"{card.name} is not to be opened here")

    cards = (card, *(other for other, _ in more))
    models = ModelSet(lambda: tuple(card.name for card in cards), none_else, no_process, clock)
    for version, scripted in ((card, runner), *more):
        models.adopt(version, scripted)
    return models


@asynccontextmanager
async def cloud(**replaced: Any) -> AsyncIterator[Cloud]:
    """A worker that runs until the block is left; more: cards of versions that it has loaded besides."""
    clock = ManualClock()
    bus, blob, runner = MemoryBus(clock), open_store("memory://"), ScriptedRunner()
    jobs = JobStore(blob=blob, bus=bus, clock=clock)
    served = replaced.get("bus", lambda broker: broker)(bus)
    store = replaced.get("jobs", lambda store: store)(jobs)
    more = tuple((card, ScriptedRunner()) for card in replaced.get("more", ()))
    transfers = Transfers()
    others = {name: replaced[name] for name in ("turns", "ahead_s") if name in replaced}
    worker = make_worker("1", store, served, runner, clock, transfers=transfers, more=more, **others)
    parts = Cloud(clock, bus, blob, jobs, runner, worker, [scripted for _, scripted in more], transfers)
    async with asyncio.TaskGroup() as group:
        parts.loop = group.create_task(worker.run())
        yield parts
        parts.loop.cancel()


def spec_of(plan: str = "cloud") -> JobSpec:
    return make_spec(plan=plan).model_copy(update={"edge_grpc_address": ""})


async def done(task: asyncio.Task[None]) -> bool:
    return task.done()


async def is_set(event: asyncio.Event) -> bool:
    return event.is_set()


class Failing:
    """A job store whose named method fails `times` times before it works."""

    def __init__(self, jobs: JobStore, method: str, error: Exception, times: int) -> None:
        self._jobs = jobs
        self._method = method
        self._error = error
        self.left = times

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._jobs, name)
        if name != self._method:
            return found

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.left:
                self.left -= 1
                raise self._error
            return await found(*args, **kwargs)

        return call


class Wrapped:
    """Another object, with some of its methods replaced."""

    def __init__(self, inner: object, **methods: Any) -> None:
        self._inner = inner
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
