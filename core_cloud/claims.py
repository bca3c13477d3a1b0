"""Which deliveries become work: the job is read, judged and claimed by compare-and-set on its record.

A claim whose answer was lost, and an attempt that ended by the platform's fault and could not be given back, do not
count: the worker remembers them and takes them off when it meets the job again.
"""

from __future__ import annotations

from collections.abc import Callable

from adaptivegen.bus.base import Delivery
from adaptivegen.clock import Clock
from adaptivegen.errors import Conflict, NotFound
from adaptivegen.jobs.record import JobRecord, claim, forgiven, judge_claim
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.telemetry import get_logger
from core_cloud.outcome import RETRY_DELAY_S, Outcomes, Uncounted

OTHER_MODEL_PAUSE_S = 2.0  # until a job is offered again that this worker's model cannot do


class Claims:
    """Claims the jobs of one model for one worker."""

    def __init__(
        self,
        *,
        node_id: str,
        incarnation: str,
        model: str,
        jobs: JobStore,
        outcomes: Outcomes,
        uncounted: Uncounted,
        clock: Clock,
        lease_s: float,
    ) -> None:
        self._node_id = node_id
        self._incarnation = incarnation
        self._model = model
        self._jobs = jobs
        self._outcomes = outcomes
        self._uncounted = uncounted
        self._clock = clock
        self._lease_s = lease_s

    async def take(self, delivery: Delivery, message: JobMessage) -> tuple[JobSpec, JobRecord] | None:
        """The claimed job, or None when the delivery was settled otherwise."""
        try:
            spec = await self._jobs.spec(message.tenant, message.id)
        except NotFound:
            await delivery.term("no spec: the submission was never accepted")
            return None
        manifest = await self._jobs.manifest(spec.tenant, spec.id)
        if manifest is not None:  # it has ended; the indexes may not know yet
            await self._outcomes.ended_before(delivery, spec, manifest)
            return None
        epochs = self._uncounted.of(spec.id)

        def eased(record: JobRecord) -> JobRecord:
            return forgiven(record, worker_id=self._node_id, incarnation=self._incarnation, epochs=epochs)

        record = eased(await self._jobs.find(spec.tenant, spec.id))
        now_ns = self._clock.now_ns()
        verdict = judge_claim(
            record, worker_id=self._node_id, incarnation=self._incarnation, now_ns=now_ns, lease_s=self._lease_s
        )
        match verdict:
            case "ended":
                await delivery.ack()
            case "held":
                left_s = (record.lease_expires_at_ns - now_ns) / 1e9
                await delivery.nak(min(self._lease_s, max(RETRY_DELAY_S, left_s)))
            case "poison":
                await self._outcomes.poison(delivery, record)
            case "claim" if spec.cloud_model != self._model:  # workers of several models may share a pool
                get_logger().info("job_of_another_model", job_id=spec.id, model=spec.cloud_model)
                await delivery.nak(OTHER_MODEL_PAUSE_S)
            case "claim":
                return await self._claim(delivery, spec, record, lambda r: self._claimed(eased(r), now_ns))
        return None

    def _claimed(self, record: JobRecord, now_ns: int) -> JobRecord:
        return claim(
            record, worker_id=self._node_id, incarnation=self._incarnation, now_ns=now_ns, lease_s=self._lease_s
        )

    async def _claim(
        self, delivery: Delivery, spec: JobSpec, record: JobRecord, step: Callable[[JobRecord], JobRecord]
    ) -> tuple[JobSpec, JobRecord] | None:
        """Until the answer is there the claim counts for nothing: it may have been made and its answer lost."""
        self._uncounted.add(spec.id, record.epoch + 1)
        try:
            claimed = await self._jobs.change(spec.tenant, spec.id, step)
        except Conflict:
            await delivery.nak(RETRY_DELAY_S)  # another worker was faster
            return None
        self._uncounted.forget(spec.id)
        return spec, claimed
