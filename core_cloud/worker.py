"""The worker: pulls jobs, claims them, has their finals made, commits, acknowledges.

Decides what a delivery needs (nothing, later, poison, work). The model makes one clip at a time; the next job is
claimed shortly before it is free, and the last one is stored beside it (`stages`). How a final is made is decided by
`finals`, what an error means for the job by `outcome`, who holds the job by `lease`; the order of writes is
`JobStore`'s, the model the runner's.
"""

from __future__ import annotations

import asyncio

from adaptivegen.bus.base import Bus, Delivery, WorkQueue
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, GenerationFailed, InternalError, PreconditionFailed
from adaptivegen.generation.kept import ModelSet
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.telemetry import get_logger, span, take_request_id
from adaptivegen.ways import Transfers
from core_cloud.claims import Claims
from core_cloud.drafts import DraftSource
from core_cloud.finals import Finals, TrialFailed
from core_cloud.lease import Lease
from core_cloud.outcome import RETRY_DELAY_S, Outcomes, Uncounted
from core_cloud.stages import AtHand, Stages
from core_cloud.turns import Claimed, Rest, Turns
from core_cloud.versions import takes

PULL_TIMEOUT_S = 5.0
PAUSE_LOOK_S = 0.5
UNWELL_FROM = 3  # failures of the model in a row
LONGEST_REST_S = 60.0
HAND_BACK_S = 8.0  # of a drain's grace: what stopping the model and giving its job back may take


class Worker:
    """One worker node. `run` until drained; `drain` finishes or gives back what is at hand."""

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
        ahead_s: float,
        incarnation: str,
        turns: Turns,
        transfers: Transfers,
    ) -> None:
        """ahead_s: so long before the model is free its next job is claimed; transfers: is told what uploads take."""
        self.stages = Stages(clock)
        self._jobs = jobs
        self._bus = bus
        self._models = models
        self._clock = clock
        self._pool = pool
        self._lease_s = lease_s
        self._ahead_s = ahead_s
        self._draining = asyncio.Event()
        self._paused = False
        self._claiming = asyncio.Lock()
        self._failures = 0  # of the version that serves, in a row
        self._failed_s = 0.0  # when the last of these had begun
        self._rest_s = 0.0  # as a scheduler has told
        uncounted = Uncounted()
        self._outcomes = Outcomes(
            node_id=node_id, jobs=jobs, bus=bus, clock=clock, pool=pool, lease_s=lease_s, uncounted=uncounted
        )
        self._finals = Finals(
            node_id=node_id,
            jobs=jobs,
            models=models,
            line=line,
            drafts=drafts,
            stages=self.stages,
            transfers=transfers,
            clock=clock,
        )
        self._claims = Claims(
            node_id=node_id,
            incarnation=incarnation,
            takes=lambda spec: takes(spec, line, models.loaded),
            held=self.stages.held,
            free_in_s=lambda: self.stages.remaining_s,
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
        async with asyncio.TaskGroup() as group:
            while True:
                await self.stages.room(lambda: 0.0 if self._failures else self._ahead_s)
                if self._draining.is_set():
                    return
                if self._paused or not self._models.ready:
                    await self._clock.sleep(PAUSE_LOOK_S)
                    continue
                await self._rest()
                try:
                    queue = queue or await self._bus.work_queue(self._pool, ack_wait_s=self._lease_s)
                    delivery = await queue.pull(timeout_s=PULL_TIMEOUT_S)
                    if delivery is None:
                        continue
                    if self._paused or self._draining.is_set():  # ordered while the pull was open
                        await delivery.nak(0.0)
                        continue
                except AdaptiveGenError as exc:
                    get_logger().warning("pull_failed", code=exc.code, error=exc.message)
                    await self._clock.sleep(RETRY_DELAY_S)
                else:
                    self._begin(group, delivery)

    def _begin(self, group: asyncio.TaskGroup, delivery: Delivery) -> None:
        self.stages.begin(group, lambda job: self._handle(job, delivery))

    async def _rest(self) -> None:
        """The model failed several times in a row: let other workers have the next jobs, for longer each time. Or a
        scheduler has put this worker out of rotation for a while."""
        if self._failures >= UNWELL_FROM:
            pause_s = min(LONGEST_REST_S, 2.0 ** (self._failures - UNWELL_FROM))
            get_logger().warning("worker_unwell", failures=self._failures, pause_s=pause_s)
            await self._clock.sleep(pause_s)
        rest_s, self._rest_s = self._rest_s, 0.0
        if rest_s:
            get_logger().warning("worker_rests", pause_s=rest_s)
            await self._clock.sleep(rest_s)

    async def drain(self, *, grace_s: float) -> None:
        """Stop pulling. What the model works on may finish, what waits behind it goes back to the queue at once, and
        what is left near the end of `grace_s` too."""
        self._draining.set()
        self.stages.close()
        hand_back_s = min(HAND_BACK_S, grace_s / 2)
        try:
            async with asyncio.timeout(grace_s - hand_back_s):
                await self.stages.settled()
                for task in self.stages.behind():
                    task.cancel("drain")
                if tasks := self.stages.tasks():
                    await asyncio.wait(tasks)
        except TimeoutError:
            await self._claim_made(within_s=hand_back_s / 2)
            tasks = self.stages.tasks()
            for task in tasks:
                task.cancel("drain")
            if tasks:
                await asyncio.wait(tasks, timeout=hand_back_s / 2)

    async def _claim_made(self, *, within_s: float) -> None:
        """Wait until no claim is under way: one that is stopped half-way cannot be given back."""
        try:
            async with asyncio.timeout(within_s), self._claiming:
                return
        except TimeoutError:
            get_logger().warning("claim_hangs")

    # ---- one delivery -----------------------------------------------------------------------------------------

    async def _handle(self, job: AtHand, delivery: Delivery) -> None:
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
                await self._take_up(job, taken)
        except PreconditionFailed as exc:
            get_logger().warning("fenced_off", job_id=message.id if message else "", error=exc.message)
        except AdaptiveGenError as exc:
            get_logger().warning("delivery_not_settled", code=exc.code, error=exc.message)

    async def _take_up(self, job: AtHand, taken: Claimed) -> None:
        """A claimed job, which may be another than the delivery's."""
        self.stages.claimed(job, taken.spec.id, taken.delivery)
        take_request_id(taken.delivery.headers)
        with span("worker.job", carrier=taken.delivery.headers, job_id=taken.spec.id):
            await self._attempt(job, taken)

    async def _attempt(self, job: AtHand, taken: Claimed) -> None:
        """Work on a claimed job and settle it. Raises PreconditionFailed when it is another's meanwhile."""
        delivery, record = taken.delivery, taken.record
        try:
            await self._work(job, taken)
            newer = job.begun_s >= self._failed_s  # not one whose upload has outlasted failures of others
            if newer and self._models.ready and job.version == self._models.main.card.name:
                self._failures = 0
        except asyncio.CancelledError:
            await self._outcomes.drained(delivery, record)
        except PreconditionFailed:
            raise
        except AdaptiveGenError as exc:
            await self._settle(job, delivery, record, exc)
        except Exception as exc:  # a bug met by one job must not take the worker from all others
            get_logger().error("unexpected_error", job_id=record.id, exc_info=exc)
            await self._settle(job, delivery, record, InternalError(f"{type(exc).__name__}: {exc}"))

    async def _settle(self, job: AtHand, delivery: Delivery, record: JobRecord, error: AdaptiveGenError) -> None:
        if isinstance(error, GenerationFailed) and not isinstance(error, TrialFailed):
            self._failures += 1
            self._failed_s = job.begun_s
        try:
            await self._outcomes.failed(delivery, record, error, version=job.version)
        except asyncio.CancelledError:
            await self._outcomes.drained(delivery, record)

    async def _work(self, job: AtHand, taken: Claimed) -> None:
        """Generate, upload and commit, all under the lease; only the commit is not stopped when the lease is lost,
        because the manifest settles by itself who was first."""
        delivery, spec, record = taken.delivery, taken.spec, taken.record
        get_logger().info("job_claimed", job_id=spec.id, epoch=record.epoch, plan=spec.decision.plan)
        lease = Lease(self._jobs, delivery, record, clock=self._clock, lease_s=self._lease_s)
        await self._outcomes.announce("started", record)
        async with lease.kept() as kept:
            making = self._finals.make(job, kept, spec, record, told=taken.told)
            manifest = await kept.run(making)
            await self._outcomes.commit(delivery, spec, manifest)
