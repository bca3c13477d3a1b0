"""One job's way from the spool to the centre: an order of writes that can be repeated, by a restarted edge, too.

    a new decision        on an open job's final; where there is no room for it, the job waits here
    envelope `begun`      from here on the centre may have the job, and only the centre changes its outcome
    idempotency key       bound to the job, unless it belongs to another: then both stand
    upload, draft, rating the job's own and checked, or the last one counts
    a repeat's note       that it refers to another's media; where those were deleted meanwhile, it is made anew
    an open job           marker, draft manifest, spec (put-if-absent), record, message; then its upgrade
    one that has ended    draft manifest, manifest (put-if-absent), spec, record
    out of the spool      its key among those seen, then spec first

Must not decide when (`drain.py` does) or what is asked of a scheduler (`placing.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from adaptivegen.errors import Conflict, InternalError, NotFound
from adaptivegen.jobs.rating import PREFIX, decode_rating
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.sharing import hold
from adaptivegen.jobs.spec import Deleted, DraftManifest, JobSpec, Manifest, input_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.uploads import fresh_upload, submit
from adaptivegen.placement import Decision
from adaptivegen.request import Reference
from adaptivegen.telemetry import get_logger
from edge_node.spool.rules import handed_note, on_return
from edge_node.spool.spool import Envelope, Spool

GONE_NOTE = "what it repeated was deleted meanwhile, and it is made anew"
DAMAGED_NOTE = "its draft was damaged while it was kept there, and is left out"
Again = Callable[[JobSpec, bool], Awaitable[Decision | None]]


async def hand_over(
    envelope: Envelope, *, spool: Spool, centre: JobStore, again: Again, node_id: str
) -> tuple[JobSpec, JobRecord]:
    """Give a job to the centre and take it out of the spool; its spec and record as they stand there. The caller holds
    the job's lock. again: asks for a new decision on an open job's final (its spec; whether it has a draft).

    Raises Deleted where the centre had the job and it was deleted there; what `again` raises; what the centre's parts
    raise, SpoolFailure, and InternalError for a job or an upload that is damaged; then the job is still in the spool,
    and this can be done again.
    """
    tenant, job_id = envelope.name
    here = spool.jobs
    first, spec = await here.first_spec(tenant, job_id), await here.spec(tenant, job_id)
    draft, manifest = await here.draft(tenant, job_id), await here.manifest(tenant, job_id)
    standing = await _standing(envelope, centre)
    if standing is not None and standing.content_key != first.content_key:  # another edge's attempt of the same key
        get_logger().warning("draft_of_another_attempt", job_id=job_id, tenant=tenant)
        draft = None
    notes: tuple[str, ...] = ()
    if manifest is not None and manifest.final is not None and not await hold(centre, tenant, job_id, manifest.final):
        made_by = spec.decision.model_copy(update={"plan": spec.request.plan or "cloud"})
        spec = spec.model_copy(update={"decision": made_by})
        draft, manifest, notes = None, None, (GONE_NOTE,)
    if draft is not None and not await _is_sound(draft, spool):
        get_logger().error("spooled_draft_damaged", job_id=job_id, tenant=tenant, key=draft.media.key)
        draft, notes = None, (DAMAGED_NOTE,)
    spooled, (upload, stored) = first, await _upload(first, standing, spool, centre, begun=envelope.begun)
    wanted = manifest is None and spec.want_final and standing is None
    decided = await again(spec, draft is not None) if wanted else None  # first: it may have to wait, and be cancelled
    await spool.begin(envelope.name)
    held_by = await _bind(envelope, centre)
    after_s = (centre.clock.now_ns() - envelope.spooled_at_ns) / 1e9
    notes = (handed_note(node_id, after_s=after_s), *notes)
    spec = spec.model_copy(update={"decision": on_return(spec, decided, held_by=held_by), "notes": notes})
    first = _referring(first.model_copy(update={"notes": notes}) if spec.upgrade else spec, upload)
    await _copy(spooled, draft, None if stored else upload, spool=spool, centre=centre)
    if manifest is not None:
        record = await _ended(first, draft, manifest, centre)
    else:
        first, record = await _open(first, draft, centre)
        if spec.upgrade:  # of what stands now, which another attempt may have written
            spec = _referring(spec, first.request.reference)
            record = await _queue(spec, await centre.ask_final(spec), centre)
    if envelope.key:  # first: with the envelope goes what this edge knows of it
        await spool.seen.keep(tenant, envelope.key, job_id, envelope.body)
    await spool.remove(spooled)
    return spec, record


async def _standing(envelope: Envelope, centre: JobStore) -> JobSpec | None:
    """The spec that the centre has already: then that counts, and nothing is decided anew. Raises Deleted."""
    try:
        return await centre.first_spec(*envelope.name)
    except Deleted:
        raise
    except NotFound:
        return None


async def _bind(envelope: Envelope, centre: JobStore) -> str:
    """Bind the idempotency key; the job that it belongs to, empty where that is this one."""
    if not envelope.key:
        return ""
    tenant, job_id = envelope.name
    try:
        held_by = await centre.reserve(tenant=tenant, key=envelope.key, job_id=job_id, body_digest=envelope.body)
    except Conflict:
        held_by = "a video of another request"
    if held_by == job_id:
        return ""
    get_logger().warning("idempotency_key_taken", job_id=job_id, tenant=tenant, held_by=held_by)
    return held_by


async def _is_sound(draft: DraftManifest, spool: Spool) -> bool:
    """Whether the bytes of a draft are what its manifest says; a repeat's draft is another job's, and not here."""
    try:
        return await spool.digest(draft.media.key) == draft.media.sha256
    except NotFound:
        return True


async def _upload(
    spec: JobSpec, standing: JobSpec | None, spool: Spool, centre: JobStore, *, begun: bool
) -> tuple[Reference | None, bool]:
    """A job's upload as the centre is to have it, and whether it has it: that of an attempt not long ago, else under a
    key of this attempt's own, since one of hours ago may be about to be swept there (`uploads`). begun: there was one.
    Raises InternalError where it is here and not what was uploaded."""
    reference = spec.request.reference
    if standing is not None or reference is None:
        return (standing.request.reference if standing is not None else None), True
    try:
        sha256 = await spool.digest(reference.key)
    except NotFound:  # the centre has it: the job was sheltered
        return reference, True
    if sha256 != reference.sha256:
        raise InternalError(f"the upload {reference.key} of {spec.id} is damaged in this edge's spool")
    key = await fresh_upload(centre, spec.tenant, spec.id, sha256) if begun else None
    stored = key is not None
    key = key or input_key(spec.tenant, spec.id, sha256, now_ns=centre.clock.now_ns())
    return reference.model_copy(update={"key": key}), stored


def _referring(spec: JobSpec, upload: Reference | None) -> JobSpec:
    return spec.model_copy(update={"request": spec.request.model_copy(update={"reference": upload})})


async def _copy(
    spec: JobSpec, draft: DraftManifest | None, upload: Reference | None, *, spool: Spool, centre: JobStore
) -> None:
    """Bring the job's upload, draft and rating over, as far as they are here: a repeat's draft is another job's.
    upload: as the centre is to have it, None where nothing of it is to be brought."""
    reference = spec.request.reference
    keys = {draft.media.key: draft.media.key} if draft is not None else {}
    keys |= {reference.key: upload.key} if reference is not None and upload is not None else {}
    for key, to in keys.items():
        try:
            data = await spool.blob.get(key)
        except NotFound:
            continue
        await centre.blob.put(to, data)
    await _copy_rating(f"{PREFIX}{spec.tenant}/{spec.id}", spool=spool, centre=centre)


async def _copy_rating(key: str, *, spool: Spool, centre: JobStore) -> None:
    """Bring a rating over, unless the centre has one that is as new: from the client, after an earlier attempt."""
    try:
        data = await spool.blob.get(key)
    except NotFound:
        return
    if await centre.blob.put_if_absent(key, data):
        return
    ours, theirs = decode_rating(data), decode_rating(await centre.blob.get(key))
    if ours is not None and theirs is not None and ours.at_ns > theirs.at_ns:
        await centre.blob.put(key, data)


async def _open(spec: JobSpec, draft: DraftManifest | None, centre: JobStore) -> tuple[JobSpec, JobRecord]:
    """Submit an open job, or one that its draft has completed; what stands then."""
    spec, record = await submit(centre, spec, draft)
    if draft is not None and record.draft is None:  # an earlier attempt had indexed it without
        record = await centre.store_draft(spec.tenant, spec.id, draft)
    if record.ended:
        await centre.clear(spec.tenant, spec.id)
    return spec, await _queue(spec, record, centre)


async def _queue(spec: JobSpec, record: JobRecord, centre: JobStore) -> JobRecord:
    """Publish the job's message again: an earlier attempt may have died before it, longer ago than a `JobStore` looks
    back. Repeats are dropped by the broker, later ones by the worker."""
    if record.want_final and record.status == "queued":
        token = "upgrade" if spec.upgrade else "submit"
        await centre.enqueue(spec.tenant, spec.id, pool=spec.decision.pool, token=token, trace=spec.trace)
    return record


async def _ended(spec: JobSpec, draft: DraftManifest | None, manifest: Manifest, centre: JobStore) -> JobRecord:
    """Store a job with its outcome. One that the centre had begun ends there by the manifest that won."""
    record = await centre.record_hit(spec, draft, manifest)
    await centre.clear(spec.tenant, spec.id)
    return record
