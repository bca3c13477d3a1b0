"""What the store tells a scheduler: which jobs are open, and how many bytes tenants have stored.

The reconciler reads all open jobs every few seconds; this hears what it finds. Stored bytes are counted every few
minutes, and only while somebody's are limited.
"""

from __future__ import annotations

from collections import Counter

from adaptivegen.blob.base import BlobStore
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.telemetry import get_logger
from scheduler.decide.jobs import OpenJob
from scheduler.decide.view import View
from scheduler.steady import SteadyTime

COUNT_EVERY_S = 300.0
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
        job = open_job(spec, record)
        now_ns = self._time.now_ns()
        job = job.model_copy(update={"placed_at_ns": min(job.placed_at_ns, now_ns)})
        self._view.jobs.recover(job, queued=record.status == "queued", now_ns=now_ns)

    def end(self) -> None:
        """The pass has seen every one."""
        now_ns = self._time.now_ns()
        gone = self._view.jobs.forget_missing(self._seen.__contains__, since_ns=self._began_ns, now_ns=now_ns)
        if gone:
            get_logger().info("open_jobs_gone", jobs=gone)


def open_job(spec: JobSpec, record: JobRecord) -> OpenJob:
    """A job as placement sees it, from what is stored of it."""
    decision, chosen = spec.decision, spec.decision.chosen()
    gpu_s = min(chosen.gpu_s, 1e9) if chosen is not None else 0.0
    wanted = {"pool": decision.pool, "model": spec.cloud_model, "work_s": gpu_s, "gpu_s": gpu_s}
    final_s = min(chosen.final_s or 0.0, 1e9) if chosen is not None else 0.0
    return OpenJob(
        job_id=spec.id,
        tenant=spec.tenant,
        tier=spec.request.service_tier,
        placed_at_ns=max(0, decision.decided_at_ns),
        ends_at_ns=max(0, decision.decided_at_ns + round(final_s * 1e9)) if final_s else 0,
        decided_by=decision.decided_by,
        **(wanted if record.want_final else {}),
    )


class StorageSurvey:
    """Counts what tenants have stored."""

    def __init__(self, view: View, blob: BlobStore, *, clock: Clock) -> None:
        self._view = view
        self._blob = blob
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

    async def count(self) -> None:
        """Count the bytes of all videos, drafts and finals; raises a storage error, and then leaves the last count."""
        found: Counter[str] = Counter()
        async for meta in self._blob.list("out/"):
            found[meta.key.split("/", 2)[1]] += meta.size_bytes
        self._view.stored_bytes = dict(found)
