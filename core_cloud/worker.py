"""The worker: pulls a job, claims it, generates, commits, acknowledges; one job at a time.

Decides what a delivery needs (nothing, later, poison, work) and how a final is made. What an error means for the job is
decided by `outcome`, who holds the job by `lease`; the order of writes is `JobStore`'s, the model the runner's.
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
    DeadlineExceeded,
    GenerationFailed,
    InternalError,
    NodeUnavailable,
    PreconditionFailed,
    StorageFailure,
    platform_fault,
)
from adaptivegen.generation.kept import ModelSet
from adaptivegen.generation.messages import GenerateCommand, Generated
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec, Manifest, Media, media_key
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.models.base import GenerationInput, Task
from adaptivegen.models.card import ModelCard
from adaptivegen.models.familiarity import doubt
from adaptivegen.nodes import STORE_PUT
from adaptivegen.request import GenerationRequest
from adaptivegen.telemetry import get_logger, span, take_request_id
from adaptivegen.ways import Transfers
from core_cloud.claims import Claims
from core_cloud.drafts import DraftSource, Start
from core_cloud.lease import Lease
from core_cloud.outcome import RETRY_DELAY_S, Outcomes, Uncounted
from core_cloud.progress import Progress, expect
from core_cloud.turns import Rest, Turns
from core_cloud.versions import Version, choose, refine_t0, steps_of, takes

PULL_TIMEOUT_S = 5.0
PAUSE_LOOK_S = 0.5
UNWELL_FROM = 3  # failures of the model in a row
LONGEST_REST_S = 60.0
UPLOAD_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
HAND_BACK_S = 8.0  # of a drain's grace: what stopping the model and giving its job back may take


class TrialFailed(GenerationFailed):
    """A version that is being tried has failed, whatever it said: another makes the final, and this worker is well."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How the final of one job is generated: the version of the model, the command, what it starts from, and what went
    otherwise."""

    version: Version
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
        models: ModelSet,
        line: str,
        drafts: DraftSource,
        clock: Clock,
        pool: str,
        lease_s: float,
        incarnation: str,
        turns: Turns,
        transfers: Transfers,
    ) -> None:
        """transfers: is told what uploads take."""
        self._transfers = transfers
        self.node_id = node_id
        self.jobs = jobs
        self.progress: Progress | None = None
        self.at_hand = ""  # the job, from its claim to its outcome: also while its draft is waited for
        self._bus = bus
        self._models = models
        self._line = line
        self._drafts = drafts
        self._clock = clock
        self._pool = pool
        self._lease_s = lease_s
        self._draining = asyncio.Event()
        self._paused = False
        self._current: asyncio.Task[None] | None = None
        self._claiming = asyncio.Lock()
        self._failures = 0  # of the version that serves, in a row
        self._version = ""  # of the model, for the job at hand
        self._rest_s = 0.0  # as a scheduler has told
        uncounted = Uncounted()
        self._outcomes = Outcomes(
            node_id=node_id, jobs=jobs, bus=bus, clock=clock, pool=pool, lease_s=lease_s, uncounted=uncounted
        )
        self._claims = Claims(
            node_id=node_id,
            incarnation=incarnation,
            takes=lambda spec: takes(spec, line, models.loaded),
            versions=lambda: models.loaded,
            jobs=jobs,
            outcomes=self._outcomes,
            uncounted=uncounted,
            clock=clock,
            lease_s=lease_s,
            turns=turns,
        )

    # ---- loop -------------------------------------------------------------------------------------------------

    def pause(self, paused: bool) -> None:
        """Take no new job while an operator keeps the node drained."""
        self._paused = paused

    async def run(self) -> None:
        """Pull and handle jobs until `drain`. A broker or store that is away is waited for, and so is the model: a
        worker that cannot generate is always free, and would fail one job after the other."""
        queue: WorkQueue | None = None
        while not self._draining.is_set():
            if self._paused or not self._models.ready:
                await self._clock.sleep(PAUSE_LOOK_S)
                continue
            if self._failures >= UNWELL_FROM:
                await self._rest()
            try:
                queue = queue or await self._bus.work_queue(self._pool, ack_wait_s=self._lease_s)
                delivery = await queue.pull(timeout_s=PULL_TIMEOUT_S)
                if delivery is None:
                    continue
                if self._paused or self._draining.is_set():  # ordered while the pull was open
                    await delivery.nak(0.0)
                    continue
                await self._handle_in_task(delivery)
                await self._rest_as_told()
            except AdaptiveGenError as exc:
                get_logger().warning("pull_failed", code=exc.code, error=exc.message)
                await self._clock.sleep(RETRY_DELAY_S)

    async def drain(self, *, grace_s: float) -> None:
        """Stop pulling; the job at hand may finish, else it goes back to the queue. All of it within `grace_s`."""
        self._draining.set()
        hand_back_s = min(HAND_BACK_S, grace_s / 2)
        if self._current is not None:
            _, unfinished = await asyncio.wait({self._current}, timeout=grace_s - hand_back_s)
            if unfinished:
                await self._claim_made(within_s=hand_back_s / 2)
                self._current.cancel("drain")
                await asyncio.wait(unfinished, timeout=hand_back_s / 2)

    async def _claim_made(self, *, within_s: float) -> None:
        """Wait until no claim is under way: one that is stopped half-way cannot be given back."""
        try:
            async with asyncio.timeout(within_s), self._claiming:
                return
        except TimeoutError:
            get_logger().warning("claim_hangs")

    async def _rest(self) -> None:
        """The model failed several times in a row: let other workers have the next jobs, for longer each time."""
        pause_s = min(LONGEST_REST_S, 2.0 ** (self._failures - UNWELL_FROM))
        get_logger().warning("worker_unwell", failures=self._failures, pause_s=pause_s)
        await self._clock.sleep(pause_s)

    async def _rest_as_told(self) -> None:
        """A scheduler has put this worker out of rotation for a while."""
        rest_s, self._rest_s = self._rest_s, 0.0
        if rest_s:
            get_logger().warning("worker_rests", pause_s=rest_s)
            await self._clock.sleep(rest_s)

    async def _handle_in_task(self, delivery: Delivery) -> None:
        async with asyncio.TaskGroup() as group:
            self._current = group.create_task(self._handle(delivery))
        self._current = None

    # ---- one delivery -----------------------------------------------------------------------------------------

    async def _handle(self, delivery: Delivery) -> None:
        """Settle a delivery; where even that fails, it comes again by itself when its time is over."""
        message: JobMessage | None = None
        try:
            try:
                message = JobMessage.decode(delivery.data)
                take_request_id(delivery.headers)
                async with self._claiming:
                    taken = await self._claims.take(delivery, message)
            except AdaptiveGenError as exc:
                await self._outcomes.unclaimed(delivery, message, exc)
                return
            except Exception as exc:  # a bug met by one job must not take the worker from all others
                get_logger().error("unexpected_error", exc_info=exc)
                await self._outcomes.unclaimed(delivery, message, InternalError(f"{type(exc).__name__}: {exc}"))
                return
            except asyncio.CancelledError:  # drained before the claim
                await delivery.nak(0.0)
                return
            if isinstance(taken, Rest):
                self._rest_s = taken.seconds
            elif taken is not None:
                take_request_id(taken.delivery.headers)
                with span("worker.job", carrier=taken.delivery.headers, job_id=taken.spec.id):
                    await self._attempt(taken.delivery, taken.spec, taken.record)
        except PreconditionFailed as exc:
            get_logger().warning("fenced_off", job_id=message.id if message else "", error=exc.message)
        except AdaptiveGenError as exc:
            get_logger().warning("delivery_not_settled", code=exc.code, error=exc.message)

    async def _attempt(self, delivery: Delivery, spec: JobSpec, record: JobRecord) -> None:
        """Work on a claimed job and settle it. Raises PreconditionFailed when it is another's meanwhile."""
        try:
            self._version = ""
            await self._work(delivery, spec, record)
            if self._models.ready and self._version == self._models.main.card.name:
                self._failures = 0
        except asyncio.CancelledError:
            await self._outcomes.drained(delivery, record)
        except PreconditionFailed:
            raise
        except AdaptiveGenError as exc:
            await self._settle(delivery, record, exc)
        except Exception as exc:  # a bug met by one job must not take the worker from all others
            get_logger().error("unexpected_error", job_id=spec.id, exc_info=exc)
            await self._settle(delivery, record, InternalError(f"{type(exc).__name__}: {exc}"))

    async def _settle(self, delivery: Delivery, record: JobRecord, error: AdaptiveGenError) -> None:
        if isinstance(error, GenerationFailed) and not isinstance(error, TrialFailed):
            self._failures += 1
        try:
            await self._outcomes.failed(delivery, record, error, version=self._version)
        except asyncio.CancelledError:
            await self._outcomes.drained(delivery, record)

    async def _work(self, delivery: Delivery, spec: JobSpec, record: JobRecord) -> None:
        """Generate, upload and commit, all under the lease; only the commit is not stopped when the lease is lost,
        because the manifest settles by itself who was first."""
        get_logger().info("job_claimed", job_id=spec.id, epoch=record.epoch, plan=spec.decision.plan)
        lease = Lease(self.jobs, delivery, record, clock=self._clock, lease_s=self._lease_s)
        self.at_hand = spec.id
        try:
            await self._outcomes.announce("started", record)
            async with lease.kept() as kept:
                manifest = await kept.run(self._produce(kept, spec, record))
                await self._outcomes.commit(delivery, spec, manifest)
        finally:
            self.at_hand = ""

    async def _produce(self, lease: Lease, spec: JobSpec, record: JobRecord) -> Manifest:
        """The uploaded final, and the manifest that would make it the outcome."""
        version = choose(spec, self._line, self._models.loaded, attempts=record.attempts)
        self._version = version.name
        kept = self._models.find(version.name)
        if kept is None:
            raise NodeUnavailable(f"{version.name} is not loaded")
        async with self._models.using(kept) as runner:
            plan = await self._plan(spec, record, version, kept.card)
            progress = self.progress = Progress(expect(kept.card, steps=plan.command.request.steps))
            lease.follow(progress)
            began_s = self._clock.monotonic_s()
            try:
                generated = await runner.generate(
                    plan.command,
                    plan.start.mp4,
                    lambda step: progress.observe(step, elapsed_s=self._clock.monotonic_s() - began_s),
                )
            except AdaptiveGenError as exc:
                if kept is self._models.main or isinstance(exc, Cancelled) or platform_fault(exc):
                    raise
                raise TrialFailed(f"{version.name} failed: {exc.message}") from exc
            finally:
                self.progress = None
            gpu_s = self._clock.monotonic_s() - began_s
        return await self._upload(spec, record, plan, generated, gpu_s=gpu_s)

    async def _plan(self, spec: JobSpec, record: JobRecord, version: Version, card: ModelCard) -> Plan:
        """Fetch what the plan starts from and choose the steps; without its draft a final starts from noise."""
        request = spec.request
        start, strength = Start(), None
        t0 = refine_t0(spec, card, version)
        if record.plan in ("refine", "reduced") and t0 is not None:
            start = await self._drafts.draft(spec)
        drafted, note = start.mp4 is not None, start.note
        if drafted:
            strength = t0
        elif request.reference is not None:
            start = await self._drafts.reference(spec)
            strength = request.strength
        name = "reduced" if record.plan == "reduced" else "refine" if drafted else "cloud"
        steps = steps_of(spec, card, version, plan=name, drafted=drafted)
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
            task=_task(start, request, drafted=drafted),
        )
        return Plan(version, command, start, name, notes=tuple(filter(None, (version.note, note))))

    # ---- outcome ----------------------------------------------------------------------------------------------

    async def _upload(
        self, spec: JobSpec, record: JobRecord, plan: Plan, generated: Generated, *, gpu_s: float
    ) -> Manifest:
        sha256 = hashlib.sha256(generated.mp4).hexdigest()
        key = media_key(spec.tenant, spec.id, record.epoch, sha256)
        await self._put(key, generated.mp4)
        final = Media(
            key=key,
            sha256=sha256,
            size_bytes=len(generated.mp4),
            width=generated.width,
            height=generated.height,
            frames=generated.frames,
            fps=spec.request.fps,
            familiarity=generated.familiarity,
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
            gpu_s=round(gpu_s, 3),
            made_with=plan.version.name,
            failed_with=record.failed_with,
            drafted_with=plan.start.drafted_with,
            plan=plan.name,
            notes=(*plan.notes, *filter(None, (doubt(generated.familiarity),))),
        )

    async def _put(self, key: str, mp4: bytes) -> None:
        """Upload; a store that fails for a moment is asked again before the generation is given up for it."""
        for pause_s in UPLOAD_PAUSES_S:
            try:
                await self._put_once(key, mp4)
                return
            except (StorageFailure, DeadlineExceeded) as exc:
                get_logger().warning("upload_failed", key=key, code=exc.code, error=exc.message)
            await self._clock.sleep(pause_s)
        await self._put_once(key, mp4)

    async def _put_once(self, key: str, mp4: bytes) -> None:
        begun_s = self._clock.monotonic_s()
        await self.jobs.blob.put(key, mp4)
        now_s = self._clock.monotonic_s()
        self._transfers.observe(STORE_PUT, len(mp4), now_s - begun_s, now_s=now_s)


_AS_DRAFT: dict[Task, Task] = {
    "restyle": "restyle",
    "animate": "animate",
    "extend": "extended",
    "interpolate": "interpolated",
}


def _task(start: Start, request: GenerationRequest, *, drafted: bool) -> Task:
    """What the clip that generation starts from is for; a draft of an image or a video holds what was given to it."""
    if start.mp4 is None:
        return "restyle"
    if not drafted:
        return request.reference_task
    if request.reference is None:
        return "refine"
    return _AS_DRAFT[request.reference_task]
