"""The reconciler: finds jobs the queue or the index has lost and puts them right, from the object store alone.

Decides nothing about placement. Any number may run at once: every action is idempotent (a manifest wins once, a
record changes by compare-and-set, a second queue message for a claimed job is harmless).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaptivegen.errors import AdaptiveGenError, NotFound
from adaptivegen.jobs.record import JobRecord, apply_manifest, draft_stored, upgrade
from adaptivegen.jobs.spec import DraftManifest, Manifest, pending_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.telemetry import get_logger

ABANDONED_S = 3600.0  # a marker without a spec for this long belongs to no submission under way
Remedy = Literal["wait", "index", "clear", "requeue", "finish-draft-in-cloud"]


def remedy(
    record: JobRecord,
    *,
    draft: DraftManifest | None,
    manifest: Manifest | None,
    now_ns: int,
    patience_s: float,
) -> Remedy:
    """What a pending job needs. Pure.

    `index`: it has ended, the record does not know. `clear`: it has ended and only the marker is left. `requeue`:
    nobody has touched it for `patience_s` beyond its lease. `finish-draft-in-cloud`: its edge died before the draft
    was stored.
    """
    if manifest is not None:
        return "clear" if record.ended and record.status == manifest.outcome else "index"
    if draft is not None and record.draft is None:
        return "index"
    if record.ended:
        return "clear"
    quiet_since_ns = max(record.updated_at_ns, record.lease_expires_at_ns)
    if now_ns - quiet_since_ns < patience_s * 1e9:
        return "wait"
    return "requeue" if record.want_final else "finish-draft-in-cloud"


@dataclass(slots=True)
class Tally:
    """What one pass did."""

    seen: int = 0
    indexed: int = 0
    cleared: int = 0
    requeued: int = 0
    failed: int = 0


async def reconcile(jobs: JobStore, *, patience_s: float) -> Tally:
    """One pass over all pending jobs. A job that cannot be handled is logged and left for the next pass."""
    tally = Tally()
    async for tenant, job_id, marked_at_ns in jobs.pending():
        tally.seen += 1
        try:
            await _reconcile_one(jobs, tenant, job_id, tally, patience_s=patience_s, marked_at_ns=marked_at_ns)
        except AdaptiveGenError as exc:
            tally.failed += 1
            get_logger().warning("reconcile_failed", job_id=job_id, tenant=tenant, code=exc.code, error=exc.message)
    return tally


async def _reconcile_one(
    jobs: JobStore, tenant: str, job_id: str, tally: Tally, *, patience_s: float, marked_at_ns: int
) -> None:
    try:
        record = await jobs.find(tenant, job_id)
    except NotFound:  # the marker precedes the spec: this submission is under way, or died and was never accepted
        if jobs.clock.now_ns() - marked_at_ns > ABANDONED_S * 1e9:
            await jobs.blob.delete(pending_key(tenant, job_id))
            tally.cleared += 1
        return
    draft, manifest = await jobs.draft(tenant, job_id), await jobs.manifest(tenant, job_id)
    now_ns = jobs.clock.now_ns()
    match remedy(record, draft=draft, manifest=manifest, now_ns=now_ns, patience_s=patience_s):
        case "wait":
            return
        case "index":
            await jobs.change(tenant, job_id, lambda r: _indexed(r, draft, manifest))
            tally.indexed += 1
        case "clear":
            await jobs.blob.delete(pending_key(tenant, job_id))
            tally.cleared += 1
        case "requeue":
            await _requeue(jobs, tenant, job_id, now_ns)
            tally.requeued += 1
        case "finish-draft-in-cloud":
            await jobs.change(tenant, job_id, lambda r: upgrade(r, plan="cloud", eta_s=0.0, now_ns=now_ns))
            await _requeue(jobs, tenant, job_id, now_ns)
            tally.requeued += 1


def _indexed(record: JobRecord, draft: DraftManifest | None, manifest: Manifest | None) -> JobRecord:
    if draft is not None:
        record = draft_stored(record, draft)
    return apply_manifest(record, manifest) if manifest is not None else record


async def _requeue(jobs: JobStore, tenant: str, job_id: str, now_ns: int) -> None:
    spec = await jobs.spec(tenant, job_id)
    await jobs.enqueue(tenant, job_id, pool=spec.decision.pool, token=f"again-{now_ns}", trace=spec.trace)
    await jobs.change(tenant, job_id, lambda record: record.model_copy(update={"updated_at_ns": now_ns}))
    get_logger().info("job_requeued", job_id=job_id, tenant=tenant)
