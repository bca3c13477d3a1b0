"""What the store tells a scheduler: which jobs are open, and how many bytes tenants have stored.

The reconciler reads all open jobs every few seconds; this hears what it finds. Stored bytes are counted every few
minutes, and only while somebody's are limited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs import purges, uploads
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.models.card import ModelCard
from adaptivegen.telemetry import get_logger
from scheduler.decide.flow import LATEST_DRAFT_S
from scheduler.decide.jobs import OpenJob, StepChoice, is_awaited
from scheduler.decide.qoe import QoeSettings
from scheduler.decide.steps import Worth, step_choice
from scheduler.decide.view import View
from scheduler.decide.work import work_of
from scheduler.steady import SteadyTime

COUNT_EVERY_S = 300.0
LONGEST_S = 86400.0  # of one job
LOOK_EVERY_S = 5.0  # whether anybody's bytes are limited by now


class OpenJobSurvey:
    """Keeps a view's open jobs those of the store; a listener of the reconciler."""

    def __init__(self, view: View, *, time: SteadyTime) -> None:
        self._view = view
        self._time = time
        self._began_ns = 0
        self._seen: set[str] = set()

    def begin(self) -> None:
        """A pass over all open jobs begins."""
        self._began_ns, self._seen = self._time.now_ns(), set()

    def listed(self, job_id: str) -> None:
        """A job that may be open."""
        self._seen.add(job_id)

    def found(self, spec: JobSpec, record: JobRecord) -> None:
        """A job that is open, as store and index have it."""
        now_ns = self._time.now_ns()
        job = open_job(spec, record, self._view.cards, now_ns=now_ns, qoe=self._view.policy.qoe)
        self._view.jobs.recover(job, queued=record.status == "queued", now_ns=now_ns, since_ns=self._began_ns)

    def end(self) -> None:
        """The pass has seen every one."""
        now_ns = self._time.now_ns()
        gone = self._view.jobs.forget_missing(self._seen.__contains__, since_ns=self._began_ns, now_ns=now_ns)
        if gone:
            get_logger().info("open_jobs_gone", jobs=gone)


def open_job(
    spec: JobSpec, record: JobRecord, cards: Mapping[str, ModelCard], *, now_ns: int, qoe: QoeSettings
) -> OpenJob:
    """A job as placement sees it, from what is stored of it.

    Whoever decided may be of another version or mistaken, so what it says is taken within bounds; where it does not say
    how much work there is, the card does.
    """
    decision, request, chosen = spec.decision, spec.request, spec.decision.chosen()
    decided_at_ns = max(0, decision.decided_at_ns)
    placed_at_ns = min(decided_at_ns, now_ns)
    final_s = _bounded(chosen.final_s) if chosen is not None else 0.0
    wanted: dict[str, object] = {}
    if record.want_final:
        work_s = _work_s(spec, cards)
        gpu_s = (_bounded(chosen.gpu_s) if chosen is not None else 0.0) or work_s
        wanted = {"pool": decision.pool, "model": spec.cloud_model, "work_s": max(work_s, gpu_s), "gpu_s": gpu_s}
        wanted |= {"awaited": is_awaited(request.intent, asked_for=spec.upgrade)}
        wanted |= {"good_until_ns": placed_at_ns + round(qoe.final_best_s * 1e9)}
        wanted |= {"steps": _steps(spec, cards, qoe)}
        if decision.makes_draft and record.draft is None and not spec.upgrade:
            draft_s = min(_bounded(chosen.draft_s) if chosen is not None else 0.0, LATEST_DRAFT_S)
            wanted |= {"ready_at_ns": placed_at_ns + round(draft_s * 1e9)}
    if request.deadline_s:
        wanted |= {"deadline_at_ns": placed_at_ns + round(request.deadline_s * 1e9)}
    return OpenJob.model_validate(
        {
            "job_id": spec.id,
            "tenant": spec.tenant,
            "tier": request.service_tier,
            "placed_at_ns": placed_at_ns,
            "decided_at_ns": min(decided_at_ns, 2**62),
            "ends_at_ns": placed_at_ns + round(final_s * 1e9) if final_s else 0,
            **wanted,
        }
    )


def _steps(spec: JobSpec, cards: Mapping[str, ModelCard], qoe: QoeSettings) -> StepChoice | None:
    """Between which numbers of steps its final is settled, with the card's seconds; None where there is no choice."""
    request, card = spec.request, cards.get(spec.cloud_model)
    if card is None:
        return None
    shape = {"width": request.width, "height": request.height, "frames": request.frames}
    return step_choice(
        spec.decision,
        asked=request.steps or 0,
        work=lambda steps: work_of(card, **shape, steps=steps),
        worth=Worth(qoe, card, request.intent, request.width, request.height),
    )


def _work_s(spec: JobSpec, cards: Mapping[str, ModelCard]) -> float:
    """Seconds of a worker that the final needs by its card; 0 where that does not say."""
    request, card = spec.request, cards.get(spec.cloud_model)
    steps = spec.decision.final_steps or (card.limits.steps_default if card is not None else 0)
    if card is None:
        return 0.0
    work = work_of(card, width=request.width, height=request.height, frames=request.frames, steps=steps)
    return work.total_s if work is not None else 0.0


def _bounded(seconds: float | None) -> float:
    """Within what a prediction can be, and 0 for none."""
    return min(seconds, LONGEST_S) if seconds is not None and seconds > 0 else 0.0


class StorageSurvey:
    """Counts what tenants have stored."""

    def __init__(self, view: View, blob: BlobStore, bus: Bus, *, clock: Clock) -> None:
        self._view = view
        self._blob = blob
        self._bus = bus
        self._clock = clock

    async def run(self) -> None:
        """Count every few minutes while it matters, until cancelled."""
        counted_at_s: float | None = None
        while True:
            now_s = self._clock.monotonic_s()
            due = counted_at_s is None or now_s - counted_at_s >= COUNT_EVERY_S
            if due and self._view.quotas.limits_storage:
                counted_at_s = now_s
                try:
                    await self.count()
                except AdaptiveGenError as exc:
                    get_logger().warning("storage_not_counted", error=exc.message)
            await self._clock.sleep(LOOK_EVERY_S)

    async def listen(self) -> None:
        """Take off at once what is said to be freed, until cancelled: who deletes to get on need not wait for the next
        count, which puts right what was taken off in error."""
        await purges.listen(self._bus, self._freed, clock=self._clock)

    async def _freed(self, purge: purges.Purge) -> None:
        self._view.stored.freed(purge.tenant, purge.freed_bytes)

    async def count(self) -> None:
        """Count the bytes of all videos, drafts and finals, and of the uploads they were asked for with; raises a
        storage error, and then leaves the last count."""
        found: Counter[str] = Counter()
        self._view.stored.begin_count()
        async for meta in self._blob.list("out/"):
            found[meta.key.split("/", 2)[1]] += meta.size_bytes
        async for meta in self._blob.list(uploads.PREFIX):
            job = uploads.job_of(meta.key)
            if job is not None:  # those of earlier versions go with no video, so no tenant could get rid of them
                found[job[0]] += meta.size_bytes
        self._view.stored.counted(found)
