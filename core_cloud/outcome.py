"""How a delivery ends: committed, failed, given back, or put aside as unreadable.

Decides whose fault an error is. The platform's (storage, broker, a lack of resources): the job goes back and the
attempt does not count, however long it lasts. The job's: it is tried again, and after `MAX_CLAIMS` attempts it fails as
poison. One outcome wins, by the manifest; every write can be repeated.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import partial

from adaptivegen.bus.base import Bus, Delivery
from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    Cancelled,
    InternalError,
    PreconditionFailed,
    platform_fault,
)
from adaptivegen.jobs.events import EventType, make_event
from adaptivegen.jobs.record import MAX_CLAIMS, JobRecord, give_back
from adaptivegen.jobs.spec import ContentEntry, Deleted, Failure, JobSpec, Manifest
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.placement import plan_of
from adaptivegen.telemetry import get_logger

RETRY_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
MAX_REMEMBERED = 256  # attempts that must not count and could not be given back
MAX_UNCLAIMED = 8  # deliveries of a job that cannot even be claimed; about two minutes, a rollout's mixed versions


def backoff_s(times: int) -> float:
    """Seconds before the next attempt after so many, doubling from `RETRY_DELAY_S`."""
    return min(LONGEST_DELAY_S, RETRY_DELAY_S * 2.0 ** min(times - 1, 10))


class Uncounted:
    """Epochs of this worker's attempts that do not count, by job; of the last `MAX_REMEMBERED` jobs."""

    def __init__(self) -> None:
        self._epochs: OrderedDict[str, set[int]] = OrderedDict()

    def add(self, job_id: str, epoch: int) -> None:
        """The attempt at `epoch` does not count."""
        self._epochs.setdefault(job_id, set()).add(epoch)
        if len(self._epochs) > MAX_REMEMBERED:
            self._epochs.popitem(last=False)

    def of(self, job_id: str) -> frozenset[int]:
        """The epochs remembered for a job."""
        return frozenset(self._epochs.get(job_id, ()))

    def forget(self, job_id: str) -> None:
        """The record knows by now."""
        self._epochs.pop(job_id, None)


class Outcomes:
    """Settles deliveries for one worker."""

    def __init__(
        self,
        *,
        node_id: str,
        jobs: JobStore,
        bus: Bus,
        clock: Clock,
        pool: str,
        lease_s: float,
        uncounted: Uncounted,
    ) -> None:
        self._node_id = node_id
        self._jobs = jobs
        self._bus = bus
        self._clock = clock
        self._pool = pool
        self._lease_s = lease_s
        self._uncounted = uncounted
        self._unclaimed: OrderedDict[str, int] = OrderedDict()

    async def commit(self, delivery: Delivery, spec: JobSpec, manifest: Manifest) -> None:
        """One outcome wins. The loser deletes its upload; either way the message is done."""
        record, won = await self._jobs.finish(manifest)
        final = manifest.final
        if final is None:
            raise InternalError("a completed manifest without a final")
        if won:
            await self.announce("completed", record)
            await self._index_content(spec, record)
            await self._sweep(record, keep=final.key)
        elif record.final is None or record.final.key != final.key:
            await self._jobs.blob.delete(final.key)
        await delivery.ack()
        get_logger().info("job_committed", job_id=spec.id, won=won, outcome=record.status)

    async def ended_before(self, delivery: Delivery, spec: JobSpec, manifest: Manifest) -> None:
        """A job that has its outcome: write into the indexes what an attempt that died may have left out."""
        record, _ = await self._jobs.finish(manifest)
        await self._index_content(spec, record)
        await delivery.ack()

    async def failed(self, delivery: Delivery, record: JobRecord, error: AdaptiveGenError, *, version: str) -> None:
        """After an attempt that raised: done when cancelled or deleted, back to the queue, or the job's outcome.
        version: of the model, with which it was made."""
        get_logger().warning("job_attempt_failed", job_id=record.id, code=error.code, error=error.message)
        if isinstance(error, (Cancelled, Deleted)):
            await delivery.ack()
        elif platform_fault(error):
            await self._return_patiently(delivery, record, error)
        elif error.retryable and record.attempts < MAX_CLAIMS:
            delay_s = backoff_s(record.attempts)
            await self._return(delivery, record, error, counts=True, delay_s=delay_s, version=version)
        else:
            failure = Failure(code=error.code, message=error.message)
            if record.attempts >= MAX_CLAIMS:
                await self._dead_letter(delivery, f"{error.code}: {error.message}", msg_id=f"{record.id}.dead")
            await self._finish_failed(record.tenant, record.id, failure, epoch=record.epoch, version=version)
            await delivery.ack()

    async def poison(self, delivery: Delivery, record: JobRecord) -> None:
        """A job claimed too often without an outcome fails, with the last reason known."""
        last = f"; the last: {record.last_error.message}" if record.last_error else ""
        reason = f"claimed {record.attempts} times without an outcome (limit {MAX_CLAIMS}){last}"
        await self._dead_letter(delivery, reason, msg_id=f"{record.id}.dead")
        failure = Failure(code="poison", message=reason)
        await self._finish_failed(record.tenant, record.id, failure, epoch=record.epoch)
        await delivery.term(reason)

    async def unclaimed(self, delivery: Delivery, message: JobMessage | None, error: AdaptiveGenError) -> None:
        """An error before the claim. The platform's is waited out; a job that stays unreadable is put aside, failed."""
        times = self._left(delivery, message)
        get_logger().warning("delivery_left", code=error.code, error=error.message, times=times)
        hopeless = not error.retryable and not platform_fault(error)
        if not hopeless or (message is not None and times < MAX_UNCLAIMED):
            await delivery.nak(backoff_s(times))
            return
        digest = hashlib.sha256(delivery.data).hexdigest()
        await self._dead_letter(delivery, error.message, msg_id=f"{digest}.dead")
        if message is not None:
            try:
                failure = Failure(code=error.code, message=error.message)
                await self._finish_failed(message.tenant, message.id, failure, epoch=0)
            except InternalError as exc:  # its manifest or spec is what cannot be read; there is nothing to tell it in
                get_logger().error("failure_not_indexed", job_id=message.id, error=exc.message)
        await delivery.term(error.message)

    def _left(self, delivery: Delivery, message: JobMessage | None) -> int:
        """How often this worker has left the message. Its deliveries do not tell: a message also comes again because it
        was put off for another's turn."""
        if message is None:
            return delivery.delivered
        times = self._unclaimed.pop(message.id, 0) + 1
        self._unclaimed[message.id] = times
        while len(self._unclaimed) > MAX_REMEMBERED:
            self._unclaimed.popitem(last=False)
        return times

    async def drained(self, delivery: Delivery, record: JobRecord) -> None:
        """Stopped in mid-job: the next worker may start at once, and the attempt does not count."""
        await self._return(delivery, record, None, counts=False, delay_s=0.0)

    async def announce(self, kind: EventType, record: JobRecord) -> None:
        """Tell an event, best effort."""
        event = make_event(kind, record, producer=self._node_id, now_ns=self._clock.now_ns())
        try:
            await self._jobs.announce(event)
        except AdaptiveGenError as exc:
            get_logger().debug("event_not_sent", error=exc.message)

    async def _index_content(self, spec: JobSpec, record: JobRecord) -> None:
        """Let repeats of the request find the final; not one made by a fallback, by another version of the model or in
        fewer steps, whose frames the key does not stand for, nor one that is a repeat itself."""
        if record.final is None or record.cached or record.plan == "reduced":
            return
        if record.plan != plan_of(spec.decision, record.final_steps):
            return
        if record.made_with not in ("", spec.cloud_model) or record.drafted_with not in ("", spec.draft_model):
            return
        entry = ContentEntry(
            id=spec.id,
            final=record.final,
            draft=record.draft,
            final_steps=record.final_steps,
            draft_steps=record.draft_steps,
        )
        await self._jobs.index_content(spec, entry)

    async def _sweep(self, record: JobRecord, *, keep: str) -> None:
        """Delete uploads of earlier attempts that died before they could commit; epoch 0, the draft, is not theirs."""
        folder = f"out/{record.tenant}/{record.id}/"
        try:
            keys = [meta.key async for meta in self._jobs.blob.list(folder)]
            for key in keys:
                if key != keep and not key.startswith(f"{folder}0/"):
                    await self._jobs.blob.delete(key)
        except AdaptiveGenError as exc:  # they cost space, nothing else
            get_logger().warning("leftovers_not_deleted", job_id=record.id, error=exc.message)

    # ---- parts ------------------------------------------------------------------------------------------------

    async def _return_patiently(self, delivery: Delivery, record: JobRecord, error: AdaptiveGenError) -> None:
        """Give the job back, trying as long as the lease lasts; after it, remember that the attempt does not count."""
        until_s = self._clock.monotonic_s() + self._lease_s
        while True:
            try:
                await self._return(delivery, record, error, counts=False, delay_s=backoff_s(delivery.delivered))
                return
            except (PreconditionFailed, Deleted):
                raise
            except AdaptiveGenError as exc:
                if self._clock.monotonic_s() >= until_s:
                    self._uncounted.add(record.id, record.epoch)
                    raise
                get_logger().warning("job_not_given_back", job_id=record.id, code=exc.code, error=exc.message)
            await self._clock.sleep(RETRY_DELAY_S)

    async def _return(
        self,
        delivery: Delivery,
        record: JobRecord,
        error: AdaptiveGenError | None,
        *,
        counts: bool,
        delay_s: float,
        version: str = "",
    ) -> None:
        now_ns = self._clock.now_ns()
        failure = Failure(code=error.code, message=error.message) if error else None
        back = partial(
            give_back,
            epoch=record.epoch,
            worker_id=record.worker_id,
            now_ns=now_ns,
            counts=counts,
            error=failure,
            failed_with=version,
        )
        await self._jobs.change(record.tenant, record.id, back)
        await delivery.nak(delay_s)
        get_logger().info("job_given_back", job_id=record.id, attempt_counts=counts, delay_s=delay_s)

    async def _finish_failed(
        self, tenant: str, job_id: str, failure: Failure, *, epoch: int, version: str = ""
    ) -> None:
        manifest = Manifest(
            id=job_id,
            tenant=tenant,
            outcome="failed",
            epoch=epoch,
            finished_at_ns=self._clock.now_ns(),
            worker_id=self._node_id,
            error=failure,
            failed_with=version,
        )
        ended, won = await self._jobs.finish(manifest)
        if won:
            await self.announce("failed", ended)

    async def _dead_letter(self, delivery: Delivery, reason: str, *, msg_id: str) -> None:
        await self._bus.dead_letter(self._pool, delivery.data, reason=reason, msg_id=msg_id)
