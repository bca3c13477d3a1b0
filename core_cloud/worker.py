"""The worker: pulls a job, claims it, generates, commits, acknowledges; one job at a time.

Decides what a delivery needs (nothing, later, poison, work) and what an error means for the job. The order of writes is
`JobStore`'s; the model is the runner's. Lease: renewed every third of it, and confirmed; when confirmation fails until
the lease is nearly over, the generation is stopped, because another worker may start.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from adaptivegen.bus.base import Bus, Delivery, WorkQueue
from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    Cancelled,
    Conflict,
    InternalError,
    NotFound,
    PreconditionFailed,
    StorageFailure,
)
from adaptivegen.generation.messages import GenerateCommand, Generated
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.jobs.events import EventType, make_event
from adaptivegen.jobs.record import MAX_CLAIMS, JobRecord, claim, judge_claim, release
from adaptivegen.jobs.spec import ContentEntry, Failure, JobSpec, Manifest, Media, media_key
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.models.base import GenerationInput
from adaptivegen.models.card import ModelCard
from adaptivegen.telemetry import get_logger, span, take_request_id
from core_cloud.drafts import DraftSource, Start
from core_cloud.lease import Lease
from core_cloud.progress import Progress, expect

PULL_TIMEOUT_S = 5.0
RETRY_DELAY_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How the final of one job is generated: the command, what it starts from, and what went otherwise."""

    command: GenerateCommand
    start: Start
    name: str
    notes: tuple[str, ...]


class Worker:
    """One worker node. `run` until drained; `drain` finishes or gives back the job at hand."""

    def __init__(
        self,
        *,
        node_id: str,
        jobs: JobStore,
        bus: Bus,
        runner: ModelRunner,
        drafts: DraftSource,
        card: ModelCard,
        clock: Clock,
        pool: str,
        lease_s: float,
    ) -> None:
        self.node_id = node_id
        self.jobs = jobs
        self.card = card
        self.progress: Progress | None = None
        self._bus = bus
        self._runner = runner
        self._drafts = drafts
        self._clock = clock
        self._pool = pool
        self._lease_s = lease_s
        self._draining = asyncio.Event()
        self._paused = False
        self._current: asyncio.Task[None] | None = None

    # ---- loop -------------------------------------------------------------------------------------------------

    def pause(self, paused: bool) -> None:
        """Take no new job while an operator keeps the node drained."""
        self._paused = paused

    async def run(self) -> None:
        """Pull and handle jobs until `drain`. A broker or store that is away is waited for."""
        queue: WorkQueue | None = None
        while not self._draining.is_set():
            if self._paused:
                await self._clock.sleep(HEARTBEAT_PAUSE_S)
                continue
            try:
                queue = queue or await self._bus.work_queue(self._pool, ack_wait_s=self._lease_s)
                delivery = await queue.pull(timeout_s=PULL_TIMEOUT_S)
                if delivery is not None:
                    await self._handle_in_task(delivery)
            except AdaptiveGenError as exc:
                get_logger().warning("pull_failed", code=exc.code, error=exc.message)
                await self._clock.sleep(RETRY_DELAY_S)

    async def drain(self, *, grace_s: float) -> None:
        """Stop pulling; the job at hand may finish within `grace_s`, else it goes back to the queue at once."""
        self._draining.set()
        if self._current is not None:
            _, unfinished = await asyncio.wait({self._current}, timeout=grace_s)
            for task in unfinished:
                task.cancel("drain")
            if unfinished:
                await asyncio.wait(unfinished, timeout=grace_s)

    async def _handle_in_task(self, delivery: Delivery) -> None:
        async with asyncio.TaskGroup() as group:
            self._current = group.create_task(self._handle_or_leave(delivery))
        self._current = None

    # ---- one delivery -----------------------------------------------------------------------------------------

    async def _handle_or_leave(self, delivery: Delivery) -> None:
        """Handle a delivery; when the broker or the store keeps that from being done, leave it for a later attempt."""
        try:
            await self._handle(delivery)
        except AdaptiveGenError as exc:
            get_logger().warning("delivery_left", code=exc.code, error=exc.message)
            try:
                await delivery.nak(RETRY_DELAY_S)
            except AdaptiveGenError as unsent:  # it comes again by itself when its lease is over
                get_logger().debug("delivery_not_returned", error=unsent.message)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            message = JobMessage.decode(delivery.data)
        except InternalError as exc:  # it would never become readable
            digest = hashlib.sha256(delivery.data).hexdigest()
            await self._bus.dead_letter(self._pool, delivery.data, reason=exc.message, msg_id=f"{digest}.dead")
            await delivery.term(exc.message)
            return
        take_request_id(delivery.headers)
        with span("worker.job", carrier=delivery.headers, job_id=message.id):
            try:
                spec = await self.jobs.spec(message.tenant, message.id)
            except NotFound:
                await delivery.term("no spec: the submission was never accepted")
                return
            record = await self._claim(delivery, spec)
            if record is None:
                return
            try:
                await self._work(delivery, spec, record)
            except asyncio.CancelledError:
                await self._give_back(delivery, record)
            except PreconditionFailed as exc:
                get_logger().warning("fenced_off", job_id=spec.id, epoch=record.epoch, error=exc.message)
            except AdaptiveGenError as exc:
                await self._failed(delivery, spec, record, exc)
            except Exception as exc:  # a bug met by one job must not take the worker from all others
                get_logger().error("unexpected_error", job_id=spec.id, exc_info=exc)
                await self._failed(delivery, spec, record, InternalError(f"{type(exc).__name__}: {exc}"))

    async def _claim(self, delivery: Delivery, spec: JobSpec) -> JobRecord | None:
        """The claimed record, or None when the delivery was settled otherwise."""
        record = await self.jobs.find(spec.tenant, spec.id)
        now_ns = self._clock.now_ns()
        verdict = judge_claim(record, worker_id=self.node_id, now_ns=now_ns)
        if verdict == "ended":
            await delivery.ack()
            return None
        if verdict == "held":
            await delivery.nak(max(RETRY_DELAY_S, (record.lease_expires_at_ns - now_ns) / 1e9))
            return None
        if verdict == "poison":
            reason = f"claimed {record.attempts} times without an outcome (limit {MAX_CLAIMS})"
            await self._bus.dead_letter(self._pool, delivery.data, reason=reason, msg_id=f"{spec.id}.dead")
            await self._finish_failed(spec, record, Failure(code="poison", message=reason))
            await delivery.term(reason)
            return None
        try:
            return await self.jobs.change(
                spec.tenant,
                spec.id,
                lambda r: claim(r, worker_id=self.node_id, now_ns=now_ns, lease_s=self._lease_s),
            )
        except Conflict:
            await delivery.nak(RETRY_DELAY_S)  # another worker was faster
            return None

    async def _work(self, delivery: Delivery, spec: JobSpec, record: JobRecord) -> None:
        get_logger().info("job_claimed", job_id=spec.id, epoch=record.epoch, plan=spec.decision.plan)
        lease = Lease(self.jobs, delivery, record, clock=self._clock, lease_s=self._lease_s)
        await self._announce("started", record)
        async with lease.kept() as kept:
            plan = await self._plan(spec, record)
            progress = self.progress = Progress(expect(self.card, steps=plan.command.request.steps))
            kept.follow(progress)
            try:
                generated = await kept.run(self._runner, plan.command, plan.start.mp4)
            finally:
                self.progress = None
        manifest = await self._upload(spec, record, plan, generated)
        await self._commit(delivery, spec, manifest)

    async def _plan(self, spec: JobSpec, record: JobRecord) -> Plan:
        """Fetch what the plan starts from and choose the steps; a refine without its draft becomes a cloud plan."""
        request, decision = spec.request, spec.decision
        start, name, strength = Start(), "cloud", None
        if record.plan == "refine":
            start = await self._drafts.draft(spec)
            if start.mp4 is not None:
                name, strength = "refine", decision.refine_t0
        note = start.note
        if start.mp4 is None and request.reference is not None:
            start = await self._drafts.reference(spec)
            strength = request.strength
        hold = start.mp4 is not None and request.reference is not None and request.reference.kind == "image"
        # A plan that was not decided on has the steps asked for, else the card's: the decision's are for its own plan.
        planned = decision.final_steps if name == decision.plan else request.steps
        steps = planned or self.card.limits.steps_default
        command = GenerateCommand(
            request_id=f"{spec.id}.{record.epoch}",
            request=GenerationInput(
                prompt=request.prompt,
                seed=request.seed or 0,
                width=request.width,
                height=request.height,
                frames=request.frames,
                steps=steps,
                guidance=request.guidance,
            ),
            fps=request.fps,
            strength=strength,
            hold_first_frame=hold,
        )
        return Plan(command=command, start=start, name=name, notes=(note,) if note else ())

    # ---- outcome ----------------------------------------------------------------------------------------------

    async def _upload(self, spec: JobSpec, record: JobRecord, plan: Plan, generated: Generated) -> Manifest:
        sha256 = hashlib.sha256(generated.mp4).hexdigest()
        key = media_key(spec.tenant, spec.id, record.epoch, sha256)
        await self.jobs.blob.put(key, generated.mp4)
        final = Media(
            key=key,
            sha256=sha256,
            size_bytes=len(generated.mp4),
            width=generated.width,
            height=generated.height,
            frames=generated.frames,
            fps=spec.request.fps,
        )
        return Manifest(
            id=spec.id,
            tenant=spec.tenant,
            outcome="completed",
            epoch=record.epoch,
            finished_at_ns=self._clock.now_ns(),
            worker_id=self.node_id,
            final=final,
            final_steps=plan.command.request.steps,
            plan=plan.name,
            notes=plan.notes,
        )

    async def _commit(self, delivery: Delivery, spec: JobSpec, manifest: Manifest) -> None:
        """One outcome wins. The loser deletes its upload; either way the message is done."""
        record, won = await self.jobs.finish(manifest)
        final = manifest.final
        if final is None:
            raise InternalError("a completed manifest without a final")
        if won:
            await self._announce("completed", record)
            if record.plan == spec.decision.plan:  # a fallback made other frames than the key stands for
                entry = ContentEntry(
                    id=spec.id,
                    final=final,
                    draft=record.draft,
                    final_steps=manifest.final_steps,
                    draft_steps=record.draft_steps,
                )
                await self.jobs.index_content(spec, entry)
        elif record.final is None or record.final.key != final.key:
            await self.jobs.blob.delete(final.key)
        await delivery.ack()
        get_logger().info("job_committed", job_id=spec.id, won=won, outcome=record.status)

    async def _failed(self, delivery: Delivery, spec: JobSpec, record: JobRecord, error: AdaptiveGenError) -> None:
        """A cancelled job is done; a failure that may pass is tried again; any other is the job's outcome."""
        get_logger().warning("job_attempt_failed", job_id=spec.id, code=error.code, error=error.message)
        if isinstance(error, Cancelled):
            await delivery.ack()
            return
        if (error.retryable or isinstance(error, StorageFailure)) and record.attempts < MAX_CLAIMS:
            await delivery.nak(RETRY_DELAY_S * 2**record.attempts)
            return
        if record.attempts >= MAX_CLAIMS:
            reason = f"{error.code}: {error.message}"
            await self._bus.dead_letter(self._pool, delivery.data, reason=reason, msg_id=f"{spec.id}.dead")
        await self._finish_failed(spec, record, Failure(code=error.code, message=error.message))
        await delivery.ack()

    async def _finish_failed(self, spec: JobSpec, record: JobRecord, failure: Failure) -> None:
        manifest = Manifest(
            id=spec.id,
            tenant=spec.tenant,
            outcome="failed",
            epoch=record.epoch,
            finished_at_ns=self._clock.now_ns(),
            worker_id=self.node_id,
            error=failure,
        )
        ended, won = await self.jobs.finish(manifest)
        if won:
            await self._announce("failed", ended)

    async def _give_back(self, delivery: Delivery, record: JobRecord) -> None:
        """Drained in mid-job: the next worker may start at once, and the attempt does not count."""
        now_ns = self._clock.now_ns()
        await self.jobs.change(record.tenant, record.id, lambda r: release(r, epoch=record.epoch, now_ns=now_ns))
        await delivery.nak(0.0)
        get_logger().info("job_given_back", job_id=record.id)

    async def _announce(self, kind: EventType, record: JobRecord) -> None:
        event = make_event(kind, record, producer=self.node_id, now_ns=self._clock.now_ns())
        try:
            await self.jobs.announce(event)
        except AdaptiveGenError as exc:
            get_logger().debug("event_not_sent", error=exc.message)


HEARTBEAT_PAUSE_S = 0.5
