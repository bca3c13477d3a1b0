"""The jobs of a worker by stage: while the model works on one, the next is prepared and the last is uploaded.

Decides when the next job may be taken, and who has the model. Claiming a job, fetching its draft and storing its final
are waits for others; a model that stood still for them would be idle for a tenth of a second of every job. Only one job
is prepared at a time, and not long before the model is free: what is claimed is out of reach of other workers, and of
what comes later and is more urgent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from adaptivegen.bus.base import Delivery
from adaptivegen.clock import Clock
from adaptivegen.process import pause
from core_cloud.progress import Progress

Stage = Literal["claiming", "preparing", "generating", "finishing"]
MOST_AT_HAND = 3  # one in each of the last three stages
LOOK_EVERY_S = 0.1  # while the model works: its pace changes


@dataclass(slots=True, eq=False)
class AtHand:
    """One delivery and what became of it. job_id, delivery: that were claimed for it; version: of the model."""

    stage: Stage = "claiming"
    job_id: str = ""
    delivery: Delivery | None = None
    version: str = ""
    progress: Progress | None = None
    begun_s: float = 0.0  # generating
    idle_s: float = 0.0  # that the model had nothing to do before that
    broke: bool = False  # there; what that means is being settled
    task: asyncio.Task[None] | None = None


class Stages:
    """What one worker has at hand. One loop takes jobs; their tasks go through the stages by themselves."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: list[AtHand] = []  # as they were taken
        self._model = asyncio.Lock()
        self._changed = asyncio.Event()
        self._closed = False
        self._free_since_s = clock.monotonic_s()

    # ---- as others see it -------------------------------------------------------------------------------------

    @property
    def at_hand(self) -> tuple[str, ...]:
        """Claimed jobs that need the model, the one that has it first."""
        having = [job for job in self._held if job.stage == "generating"]
        return tuple(job.job_id for job in (*having, *(job for job in self._held if job.stage == "preparing")))

    @property
    def remaining_s(self) -> float:
        """Predicted seconds until the model is free; 0 where it is."""
        job = self._generating()
        if job is None or job.progress is None:
            return 0.0
        return job.progress.remaining_s(elapsed_s=self._clock.monotonic_s() - job.begun_s)

    @property
    def storing(self) -> tuple[str, ...]:
        """Jobs that do not need the model any more."""
        return tuple(job.job_id for job in self._held if job.stage == "finishing")

    def held(self, job_id: str) -> Delivery | None:
        """The message of a job that this worker has at hand in whatever stage; None where it has not."""
        return next((job.delivery for job in self._held if job.job_id == job_id), None)

    def _generating(self) -> AtHand | None:
        return next((job for job in self._held if job.stage == "generating"), None)

    # ---- taking jobs ------------------------------------------------------------------------------------------

    def begin(self, group: asyncio.TaskGroup, work: Callable[[AtHand], Coroutine[Any, Any, None]]) -> None:
        """Start `work` on a delivery in a task of its own; it is at hand until that ends."""
        job = AtHand()
        self._held.append(job)
        job.task = group.create_task(work(job))
        job.task.add_done_callback(lambda _: self._end(job))

    def _end(self, job: AtHand) -> None:
        self._held.remove(job)
        self._changed.set()

    async def settled(self) -> None:
        """Wait until no delivery is being claimed."""
        while any(job.stage == "claiming" for job in self._held):
            await self._change()

    async def room(self, ahead_s: Callable[[], float]) -> None:
        """Wait until the next job may be taken: as soon as the model will be free in so many seconds, or is."""
        while not self._closed and (left_s := self.room_in_s(ahead_s=ahead_s())) != 0.0:
            await self._change(min(left_s, LOOK_EVERY_S) if left_s is not None else None)

    def room_in_s(self, *, ahead_s: float) -> float | None:
        """Seconds until the next job may be taken, as things are; None: not before something changes."""
        waiting = any(job.stage in ("claiming", "preparing") for job in self._held)
        if waiting or len(self._held) >= MOST_AT_HAND:
            return None
        job = self._generating()
        if job is None:
            return 0.0
        if ahead_s <= 0 or any(other.broke for other in self._held):
            return None
        known = job.progress is not None and job.progress.steps  # before a step is done the pace is not
        return max(0.0 if known else LOOK_EVERY_S, self.remaining_s - ahead_s)

    async def _change(self, within_s: float | None = None) -> None:
        self._changed.clear()
        if within_s is None:
            await self._changed.wait()
        else:
            await pause(within_s, stop=self._changed, clock=self._clock)

    @asynccontextmanager
    async def model(self, job: AtHand, progress: Progress) -> AsyncIterator[None]:
        """The model is the job's while the block lasts, which begins when it is free."""
        async with self._model:
            job.stage, job.progress, job.begun_s = "generating", progress, self._clock.monotonic_s()
            job.idle_s = job.begun_s - self._free_since_s
            self._changed.set()
            try:
                yield
            except BaseException:
                job.broke = True
                raise
            finally:
                job.stage, job.progress = "finishing", None
                self._free_since_s = self._clock.monotonic_s()
                self._changed.set()

    def claimed(self, job: AtHand, job_id: str, delivery: Delivery) -> None:
        """What was taken has become this job, with this message."""
        job.job_id, job.delivery, job.stage = job_id, delivery, "preparing"
        self._changed.set()

    # ---- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """No job is taken any more; nobody waits for room."""
        self._closed = True
        self._changed.set()

    def tasks(self) -> set[asyncio.Task[None]]:
        """Of all that is at hand."""
        return {job.task for job in self._held if job.task is not None}

    def behind(self) -> set[asyncio.Task[None]]:
        """Of claimed jobs that wait while the model works on another."""
        if self._generating() is None:
            return set()
        return {job.task for job in self._held if job.stage == "preparing" and job.task is not None}
