"""Which deliveries become work: the job is read, judged and claimed by compare-and-set on its record.

A claim whose answer was lost, and an attempt that ended by the platform's fault and could not be given back, do not
count: the worker remembers them and takes them off when it meets the job again.
"""

from __future__ import annotations

from collections.abc import Callable

from adaptivegen.bus.base import Delivery
from adaptivegen.clock import Clock
from adaptivegen.errors import Conflict, NotFound
from adaptivegen.jobs.record import ClaimVerdict, JobRecord, claim, forgiven, judge_claim
from adaptivegen.jobs.spec import Deleted, JobSpec
from adaptivegen.jobs.store import JobMessage, JobStore
from adaptivegen.placement import AS_DECIDED, MAX_FREE_IN_S, Ticket, ToldSteps
from adaptivegen.telemetry import get_logger
from core_cloud.outcome import RETRY_DELAY_S, Outcomes, Uncounted
from core_cloud.turns import Claimed, OutOfOrder, Rest, Turns

MOST_REST_S = 60.0  # in a row: then a job is begun, whatever a scheduler says
OTHER_MODEL_PAUSE_S = 2.0  # until a job is offered again that this worker's model cannot do


class Claims:
    """Claims the jobs of one model for one worker. takes: whether a job is one; held: the message of one that it has
    at hand, None where it has not; free_in_s: until the model should be; versions: of that, by name."""

    def __init__(
        self,
        *,
        node_id: str,
        incarnation: str,
        takes: Callable[[JobSpec], bool],
        held: Callable[[str], Delivery | None],
        free_in_s: Callable[[], float],
        versions: Callable[[], tuple[str, ...]],
        jobs: JobStore,
        outcomes: Outcomes,
        uncounted: Uncounted,
        clock: Clock,
        lease_s: float,
        turns: Turns,
    ) -> None:
        self._turns = turns
        self._rested_s = 0.0  # in a row, as schedulers have told
        self._node_id = node_id
        self._incarnation = incarnation
        self._takes = takes
        self._held = held
        self._free_in_s = free_in_s
        self._versions = versions
        self._jobs = jobs
        self._outcomes = outcomes
        self._uncounted = uncounted
        self._clock = clock
        self._lease_s = lease_s

    async def take(self, delivery: Delivery, message: JobMessage) -> Claimed | Rest | None:
        """The claimed job, which may be another than the delivery's, or None when the delivery was settled otherwise.

        A worker that is to rest has given the delivery back.
        """
        try:
            spec = await self._jobs.spec(message.tenant, message.id)
        except Deleted:
            await delivery.ack()
            return None
        except NotFound:
            await delivery.term("no spec: the submission was never accepted")
            return None
        manifest = await self._jobs.manifest(spec.tenant, spec.id)
        if manifest is not None:  # it has ended; the indexes may not know yet
            await self._outcomes.ended_before(delivery, spec, manifest)
            return None
        at_hand = self._held(spec.id)
        if isinstance(at_hand, OutOfOrder) and at_hand.come is None:
            at_hand.come = delivery
            return None
        record, now_ns = await self._record(spec), self._clock.now_ns()
        match self._verdict(record, now_ns):
            case "ended":
                await delivery.ack()
            case "held":
                left_s = (record.lease_expires_at_ns - now_ns) / 1e9
                await delivery.nak(min(self._lease_s, max(RETRY_DELAY_S, left_s)))
            case "poison":
                await self._outcomes.poison(delivery, record)
            case "claim" if not self._takes(spec):  # workers of several models may share a pool
                get_logger().info("job_of_another_model", job_id=spec.id, model=spec.cloud_model)
                await delivery.nak(OTHER_MODEL_PAUSE_S)
            case "claim":
                return await self._in_turn(delivery, spec, record)
        return None

    async def _in_turn(self, delivery: Delivery, spec: JobSpec, record: JobRecord) -> Claimed | Rest | None:
        """Claim the job that is due: this one, unless a scheduler names another that can be had."""
        turn = await self._turns.whose(
            Ticket(
                worker_id=self._node_id,
                pool=spec.decision.pool,
                model=spec.cloud_model,
                models=tuple(dict.fromkeys((*self._versions(), spec.cloud_model))),
                tenant=spec.tenant,
                job_id=spec.id,
                free_in_s=min(self._free_in_s(), MAX_FREE_IN_S),
            )
        )
        if turn is not None and 0 < turn.rest_s <= MOST_REST_S - self._rested_s:
            self._rested_s += turn.rest_s
            await delivery.nak(0.0)
            return Rest(turn.rest_s)
        self._rested_s = 0.0
        if turn is not None and (turn.tenant, turn.job_id) != (spec.tenant, spec.id):
            message = JobMessage(tenant=turn.tenant, id=turn.job_id)
            found = await self._claimable(message, pool=spec.decision.pool)
            if found is not None:
                # Before the claim: after it nothing may fail or be cancelled until the job is worked on.
                await delivery.nak(0.0)
                return await self._claim_out_of_order(message, *found, told=turn.told)
        claimed = await self._claim(spec, record)
        if claimed is None:
            await delivery.nak(RETRY_DELAY_S)  # another worker was faster
            return None
        own = turn is not None and (turn.tenant, turn.job_id) == (spec.tenant, spec.id)
        return Claimed(delivery, *claimed, told=turn.told if turn is not None and own else AS_DECIDED)

    async def _claim_out_of_order(
        self, message: JobMessage, spec: JobSpec, record: JobRecord, *, told: ToldSteps
    ) -> Claimed | None:
        """Claim a job whose message has not come; None where that was not possible. Whatever happens, the message that
        did come is another's by now."""
        try:
            claimed = await self._claim(spec, record)
        except Exception as exc:
            get_logger().warning("turn_not_taken", job_id=spec.id, error=repr(exc)[:500])
            return None
        if claimed is None:
            return None
        return Claimed(OutOfOrder(message, spec.trace), *claimed, told=told)

    async def _claimable(self, message: JobMessage, *, pool: str) -> tuple[JobSpec, JobRecord] | None:
        """The job of a message that has not come yet; None where it is not this worker's to do now."""
        try:
            spec = await self._jobs.spec(message.tenant, message.id)
            if spec.decision.pool != pool or not self._takes(spec):
                return None
            if await self._jobs.manifest(spec.tenant, spec.id) is not None:
                return None
            record = await self._record(spec)
        except Exception as exc:  # whatever is wrong with that job is no fault of the one whose message came
            get_logger().warning("turn_not_taken", job_id=message.id, error=repr(exc)[:500])
            return None
        wanted = record.want_final and self._verdict(record, self._clock.now_ns()) == "claim"
        return (spec, record) if wanted else None

    async def _record(self, spec: JobSpec) -> JobRecord:
        return self._eased(await self._jobs.find(spec.tenant, spec.id))

    def _eased(self, record: JobRecord) -> JobRecord:
        """Without the attempts of this worker that do not count."""
        epochs = self._uncounted.of(record.id)
        return forgiven(record, worker_id=self._node_id, incarnation=self._incarnation, epochs=epochs)

    def _verdict(self, record: JobRecord, now_ns: int) -> ClaimVerdict:
        if self._held(record.id) is not None and not record.ended:  # by this very worker, which could claim it again
            return "held"
        return judge_claim(
            record, worker_id=self._node_id, incarnation=self._incarnation, now_ns=now_ns, lease_s=self._lease_s
        )

    def _claimed(self, record: JobRecord, now_ns: int) -> JobRecord:
        return claim(
            record, worker_id=self._node_id, incarnation=self._incarnation, now_ns=now_ns, lease_s=self._lease_s
        )

    async def _claim(self, spec: JobSpec, record: JobRecord) -> tuple[JobSpec, JobRecord] | None:
        """Claim the job, None where another worker was faster.

        Until the answer is there the claim counts for nothing: it may have been made and its answer lost."""
        now_ns = self._clock.now_ns()
        epochs = self._uncounted.of(spec.id)
        self._uncounted.add(spec.id, record.epoch + 1)

        def step(found: JobRecord) -> JobRecord:
            eased = forgiven(found, worker_id=self._node_id, incarnation=self._incarnation, epochs=epochs)
            return self._claimed(eased, now_ns)

        try:
            claimed = await self._jobs.change(spec.tenant, spec.id, step)
        except Conflict:
            return None
        self._uncounted.forget(spec.id)
        return spec, claimed
