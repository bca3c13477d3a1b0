"""The lease of one claimed job: renewed, confirmed, given up in time; and the generation that runs under it.

The numbered danger: (1) a worker loses the broker, (2) its lease ends, (3) another claims the job with epoch + 1,
(4) the first still generates. The epoch keeps it from committing; stopping it here keeps it from wasting the GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adaptivegen.bus.base import Delivery
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, Cancelled, PreconditionFailed
from adaptivegen.generation.messages import GenerateCommand, Generated, Step
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.jobs.events import cancel_subject, make_event
from adaptivegen.jobs.record import JobRecord, renew
from adaptivegen.jobs.store import JobStore
from adaptivegen.process import end
from adaptivegen.telemetry import get_logger
from core_cloud.progress import Progress

REPORT_EVERY_S = 0.5
GIVE_UP_SHARE = 0.9  # of the lease without a confirmed renewal


class Lease:
    """Keeps one job claimed while `kept()` is open."""

    def __init__(self, jobs: JobStore, delivery: Delivery, record: JobRecord, *, clock: Clock, lease_s: float) -> None:
        self._jobs = jobs
        self._delivery = delivery
        self._record = record
        self._clock = clock
        self._lease_s = lease_s
        self._progress: Progress | None = None
        self._began_s = clock.monotonic_s()
        self._confirmed_s = self._began_s
        self._generation: asyncio.Task[Generated] | None = None
        self._ended: AdaptiveGenError | None = None

    def follow(self, progress: Progress) -> None:
        """Tell this progress to clients while the lease is kept."""
        self._progress = progress

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Lease]:
        """Renew in the background until the block is left; raises PreconditionFailed or Cancelled for a lost job."""
        watch = await self._jobs.bus.subscribe(cancel_subject(self._record.id), buffer=4)
        try:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep())
                listener = group.create_task(self._listen(watch.__aiter__()))
                try:
                    yield self
                finally:
                    await end(keeper, listener)
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        finally:
            await watch.close()

    async def run(self, runner: ModelRunner, command: GenerateCommand, start_mp4: bytes | None) -> Generated:
        """Generate under the lease; raises why the job was lost if it is lost meanwhile."""
        if self._ended is not None:
            raise self._ended
        began_s = self._clock.monotonic_s()

        def on_step(step: Step) -> None:
            if self._progress is not None:
                self._progress.observe(step, elapsed_s=self._clock.monotonic_s() - began_s)

        try:
            async with asyncio.TaskGroup() as group:
                self._generation = group.create_task(runner.generate(command, start_mp4, on_step))
        except BaseExceptionGroup as errors:
            raise (self._ended or _first(errors)) from errors
        if self._generation.cancelled():
            raise self._ended or Cancelled(f"job {self._record.id} was stopped")
        return self._generation.result()

    def _lose(self, reason: AdaptiveGenError) -> None:
        """Stop the generation; `run` raises `reason`."""
        self._ended = reason
        if self._generation is not None:
            self._generation.cancel()

    async def _keep(self) -> None:
        """Report progress every half second, renew every third of the lease, give up near its end."""
        told = -1
        renewed_s = self._clock.monotonic_s()
        while self._ended is None:
            await self._clock.sleep(REPORT_EVERY_S)
            now_s = self._clock.monotonic_s()
            progress = self._progress
            moved = progress is not None and progress.percent != told
            if moved or now_s - renewed_s >= self._lease_s / 3:
                renewed_s = now_s
                told = progress.percent if progress else told
                await self._renew(confirm=now_s - self._confirmed_s >= self._lease_s / 3)
            if now_s - self._confirmed_s > self._lease_s * GIVE_UP_SHARE:
                self._lose(PreconditionFailed(f"the lease of {self._record.id} could not be renewed in time"))

    async def _renew(self, *, confirm: bool) -> None:
        progress = self._progress
        percent, eta_s = (progress.percent, progress.eta_s) if progress else (0, 0.0)
        now_ns = self._clock.now_ns()
        try:
            if confirm:
                await self._delivery.in_progress()
                self._confirmed_s = self._clock.monotonic_s()
            record = await self._jobs.change(
                self._record.tenant,
                self._record.id,
                lambda r: renew(
                    r,
                    epoch=self._record.epoch,
                    now_ns=now_ns,
                    lease_s=self._lease_s,
                    progress_percent=percent,
                    eta_s=eta_s,
                ),
            )
            event = make_event(
                "progress",
                record,
                producer=record.worker_id,
                now_ns=now_ns,
                step=progress.step if progress else 0,
                steps=progress.steps if progress else 0,
            )
            await self._jobs.announce(event)
        except PreconditionFailed as exc:
            await self._lost_fence(exc)
        except AdaptiveGenError as exc:
            get_logger().warning("lease_not_renewed", job_id=self._record.id, code=exc.code, error=exc.message)

    async def _lost_fence(self, reason: PreconditionFailed) -> None:
        record = await self._jobs.find(self._record.tenant, self._record.id)
        cancelled = record.status == "cancelled"
        self._lose(Cancelled(f"job {record.id} was cancelled") if cancelled else reason)

    async def _listen(self, messages: AsyncIterator[object]) -> None:
        """A cancel hint stops the GPU within a step; the manifest (already written) is what ends the job."""
        async for _ in messages:
            manifest = await self._jobs.manifest(self._record.tenant, self._record.id)
            if manifest is not None and manifest.outcome == "cancelled":
                self._lose(Cancelled(f"job {self._record.id} was cancelled"))
                return


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that matters of a group: ours before any other."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [errors]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, AdaptiveGenError)), flat[0])
