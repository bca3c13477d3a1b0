"""Uploads of jobs: which are whose, and what becomes of those that no job refers to.

An upload is stored before the spec that refers to it, so one whose submission died, or lost against another attempt of
the same job, belongs to nobody. Its key has the moment of its attempt (`input_key`), so no later attempt writes the
same object, or refers to one that is not fresh: once an attempt must be over, what its job does not refer to can go,
whatever else happens to the job meanwhile. How long ago it was stored only the store's clock says.
"""

from __future__ import annotations

from adaptivegen.batches import AT_ONCE, read_all
from adaptivegen.blob.base import ObjectMeta
from adaptivegen.blob.moment import store_now_ns
from adaptivegen.errors import AdaptiveGenError, InternalError, NotFound
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import Deleted, DraftManifest, JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.troubles import Troubles
from adaptivegen.telemetry import get_logger

PREFIX = "inputs/"
ABANDONED_S = 3600.0  # after it an upload belongs to no submission under way: each of its calls ends within seconds
FRESH_S = ABANDONED_S / 2  # within it a later attempt may refer to it: no sweep looks before its spec is there
SWEEP_EVERY_S = 3600.0
SWEPT = "inputs-swept"


def job_of(key: str) -> tuple[str, str] | None:
    """Tenant and id of the job that an upload was stored for; None for a key of an earlier version, or none of ours."""
    parts = key.split("/")
    return (parts[1], parts[2]) if len(parts) == 4 and parts[0] == "inputs" else None


async def uploads_of(jobs: JobStore, tenant: str, job_id: str) -> list[ObjectMeta]:
    """All that was uploaded for a job; raises a storage error."""
    return [meta async for meta in jobs.blob.list(f"{PREFIX}{tenant}/{job_id}/")]


async def fresh_upload(jobs: JobStore, tenant: str, job_id: str, sha256: str) -> str | None:
    """Key of an upload of these bytes that an attempt of the last `FRESH_S` has stored for a job, by the times in its
    keys: the clock of who asks and theirs may differ by minutes. Raises a storage error."""
    now_ms = jobs.clock.now_ns() // 10**6
    for meta in reversed(await uploads_of(jobs, tenant, job_id)):  # last the newest
        at_ms, _, digest = meta.key.rpartition("/")[2].partition("-")
        if digest == sha256 and at_ms.isdecimal() and 0 <= now_ms - int(at_ms) <= FRESH_S * 1000:
            return meta.key
    return None


async def submit(jobs: JobStore, spec: JobSpec, draft: DraftManifest | None = None) -> tuple[JobSpec, JobRecord]:
    """`JobStore.submit`, and where another attempt's spec, or a tombstone, stands, this one's upload is taken back.

    What stands is never replaced, so nobody will refer to it. A submission that ends otherwise may have been a success:
    what it stored is left to the sweep.
    """
    mine = spec.request.reference.key if spec.request.reference is not None else ""
    try:
        standing, record = await jobs.submit(spec, draft)
    except Deleted:
        await _take_back(jobs, mine)
        raise
    if mine not in _referred(standing):
        await _take_back(jobs, mine)
    return standing, record


async def _take_back(jobs: JobStore, key: str) -> None:
    if key and job_of(key) is not None:
        try:
            await jobs.blob.delete(key)
        except AdaptiveGenError as exc:  # the sweep's, then
            get_logger().warning("upload_left", key=key, code=exc.code, error=exc.message)


def _referred(spec: JobSpec) -> set[str]:
    return {spec.request.reference.key} if spec.request.reference is not None else set()


class UploadSweep:
    """Removes uploads that no job refers to. What is referred to stays so until its video is deleted, which removes it,
    so each upload is judged once: the object `SWEPT` says, for all who sweep, up to which of the store's moments all
    are."""

    def __init__(self, jobs: JobStore, troubles: Troubles) -> None:
        self._jobs = jobs
        self._troubles = troubles
        self._swept_at_s: float | None = None

    async def run_if_due(self) -> int:
        """A sweep every `SWEEP_EVERY_S`; how many uploads it removed. Raises what the store raises while listed."""
        now_s = self._jobs.clock.monotonic_s()
        if self._swept_at_s is not None and now_s - self._swept_at_s < SWEEP_EVERY_S:
            return 0
        self._swept_at_s = now_s
        return await self.sweep()

    async def sweep(self) -> int:
        """One pass; how many uploads it removed. While one cannot be judged, it and what came later is judged again in
        the next."""
        now_ns = await store_now_ns(self._jobs.blob)
        since_ns = last_ns = await self._judged_ns(now_ns)
        until_ns = now_ns - round(ABANDONED_S * 1e9)
        removed, whole = 0, True
        batch: list[str] = []

        async def judge() -> None:
            nonlocal removed, whole
            found = await read_all(batch, self._one)
            batch.clear()
            removed += sum(1 for gone in found if gone)
            whole = whole and None not in found

        async for meta in self._jobs.blob.list(PREFIX):
            if since_ns < meta.last_modified_ns <= until_ns and job_of(meta.key) is not None:
                last_ns = max(last_ns, meta.last_modified_ns)
                batch.append(meta.key)
            if len(batch) == AT_ONCE:
                await judge()
        await judge()
        if whole and last_ns > since_ns:
            await self._jobs.blob.put(SWEPT, str(last_ns).encode())
        if removed:
            get_logger().info("uploads_removed", uploads=removed)
        return removed

    async def _judged_ns(self, now_ns: int) -> int:
        """By when all that was written is judged; -1 where that is not known, or was said before the store's clock was
        set back, so that what is new may have an older stamp."""
        try:
            if (await self._jobs.blob.head(SWEPT)).last_modified_ns > now_ns:
                return -1
            return int(await self._jobs.blob.get(SWEPT, end=20))
        except (NotFound, ValueError):
            return -1

    async def _one(self, key: str) -> bool | None:
        """Whether it was removed; None where it cannot be told whether it may be."""
        now_s = self._jobs.clock.monotonic_s()
        try:
            needed = await self._needed(key)
            if not needed:
                await self._jobs.blob.delete(key)
        except AdaptiveGenError as exc:
            if self._troubles.failed(key, exc.message, now_s=now_s):
                get_logger().warning("upload_not_judged", key=key, code=exc.code, error=exc.message)
            return None
        self._troubles.over(key)
        return not needed

    async def _needed(self, key: str) -> bool:
        """Whether the job refers to it, or may: a damaged spec does not say."""
        tenant, job_id = job_of(key) or ("", "")
        try:
            return key in _referred(await self._jobs.first_spec(tenant, job_id)) or (
                key in _referred(await self._jobs.spec(tenant, job_id))  # an upgrade's
            )
        except NotFound:  # never accepted, or deleted
            return False
        except InternalError:
            return True
