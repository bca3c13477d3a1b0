"""The lease of one claimed job: renewed, confirmed, given up in time; and the work that runs under it.

The numbered danger: (1) a worker loses the broker, (2) its lease ends, (3) another claims the job with epoch + 1,
(4) the first still generates. The epoch keeps it from committing; stopping it here keeps it from wasting the GPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from adaptivegen.bus.base import Delivery
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, BrokerUnavailable, Cancelled, PreconditionFailed, first_error
from adaptivegen.jobs.events import cancel_subject, make_event
from adaptivegen.jobs.record import JobRecord, renew
from adaptivegen.jobs.spec import Deleted
from adaptivegen.jobs.store import JobStore
from adaptivegen.process import end
from adaptivegen.telemetry import get_logger
from core_cloud.progress import Progress

REPORT_EVERY_S = 0.5
GIVE_UP_SHARE = 0.9  # of the lease without a confirmed renewal
Result = TypeVar("Result")


class Lease:
    """Keeps one job claimed while `kept()` is open. `record` is the job as this worker claimed it."""

    def __init__(self, jobs: JobStore, delivery: Delivery, record: JobRecord, *, clock: Clock, lease_s: float) -> None:
        self._jobs = jobs
        self._delivery = delivery
        self._record = record
        self._clock = clock
        self._lease_s = lease_s
        self._progress: Progress | None = None
        self._confirmed_s = clock.monotonic_s()
        self._work: asyncio.Task[Any] | None = None
        self._lost: AdaptiveGenError | None = None

    def follow(self, progress: Progress) -> None:
        """Tell this progress to clients while the lease is kept."""
        self._progress = progress

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Lease]:
        """Renew in the background until the block is left."""
        watch = await self._jobs.bus.subscribe(cancel_subject(self._record.id), buffer=4)
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [
                    group.create_task(part)
                    for part in (self._keep(), self._give_up_in_time(), self._listen(watch.__aiter__()))
                ]
                try:
                    yield self
                finally:
                    await end(*keepers)
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        finally:
            await watch.close()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do `work` under the lease. If the job is lost meanwhile, the work is cancelled and this raises why:
        Cancelled, PreconditionFailed (another has it) or BrokerUnavailable (the lease could not be renewed)."""
        if self._lost is not None:
            work.close()
            raise self._lost
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(work)
                self._work = task
        except BaseExceptionGroup as errors:
            raise (self._lost or first_error(errors)) from errors
        finally:
            self._work = None
        if task.cancelled():
            raise self._lost or Cancelled(f"job {self._record.id} was stopped")
        return task.result()

    def _lose(self, reason: AdaptiveGenError) -> None:
        """Stop the work; `run` raises `reason`."""
        if self._lost is None:
            self._lost = reason
        if self._work is not None:
            self._work.cancel()

    async def _give_up_in_time(self) -> None:
        """Stop before the lease ends if no renewal was confirmed. Waits on the clock alone: the broker may hang."""
        while self._lost is None:
            left_s = self._confirmed_s + self._lease_s * GIVE_UP_SHARE - self._clock.monotonic_s()
            if left_s <= 0:
                self._lose(BrokerUnavailable(f"the lease of {self._record.id} could not be renewed in time"))
            else:
                await self._clock.sleep(left_s)

    async def _keep(self) -> None:
        """Report progress every half second and renew every third of the lease."""
        told = -1
        while self._lost is None:
            await self._clock.sleep(REPORT_EVERY_S)
            progress = self._progress
            due = self._clock.monotonic_s() - self._confirmed_s >= self._lease_s / 3
            if due or (progress is not None and progress.percent != told):
                told = progress.percent if progress else told
                await self._renew(confirm=due)

    async def _renew(self, *, confirm: bool) -> None:
        """One renewal, of the message and of the record when `confirm`; it counts from when it was begun."""
        began_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(self._lease_s / 3):
                if confirm:
                    await self._delivery.in_progress()
                await self._report()
            if confirm:
                self._confirmed_s = began_s
        except PreconditionFailed as exc:
            await self._fenced_off(exc)
        except Deleted as exc:
            self._lose(Cancelled(exc.message))
        except TimeoutError:
            get_logger().warning("lease_not_renewed", job_id=self._record.id, error="no answer in time")
        except AdaptiveGenError as exc:
            get_logger().warning("lease_not_renewed", job_id=self._record.id, code=exc.code, error=exc.message)

    async def _report(self) -> None:
        """Write the progress and the extended lease into the record, and tell it."""
        progress, held = self._progress, self._record
        percent, eta_s = (progress.percent, progress.eta_s) if progress else (0, 0.0)
        now_ns = self._clock.now_ns()
        record = await self._jobs.change(
            held.tenant,
            held.id,
            lambda r: renew(
                r,
                epoch=held.epoch,
                worker_id=held.worker_id,
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

    async def _fenced_off(self, reason: PreconditionFailed) -> None:
        """The record is no longer ours: ended by a cancel, or claimed by another."""
        try:
            record = await self._jobs.find(self._record.tenant, self._record.id)
        except AdaptiveGenError:
            self._lose(reason)
            return
        cancelled = record.status == "cancelled"
        self._lose(Cancelled(f"job {record.id} was cancelled") if cancelled else reason)

    async def _listen(self, messages: AsyncIterator[object]) -> None:
        """A cancel hint stops the GPU within a step; the manifest (already written) is what ends the job."""
        async for _ in messages:
            try:
                manifest = await self._jobs.manifest(self._record.tenant, self._record.id)
                deleted = manifest is None and await self._jobs.tombstone(self._record.tenant, self._record.id)
            except AdaptiveGenError as exc:  # the record tells it at the next renewal
                get_logger().warning("cancel_not_checked", job_id=self._record.id, error=exc.message)
                continue
            if deleted or (manifest is not None and manifest.outcome == "cancelled"):
                self._lose(Cancelled(f"job {self._record.id} was cancelled"))
                return
