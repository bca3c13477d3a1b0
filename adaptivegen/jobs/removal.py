"""Deleting a video: an order of writes that can be repeated, by anybody, after a crash between any two of them.

    marker `deleting/`        from here on the removal is done in any case, by a sweep if not by who began it
    outcome                   an open job is cancelled first: its model stops within a step
    tombstone                 in place of the spec; with it the video is deleted, and nothing brings it back
    record                    out of the index
    upload, rating, parts     all that is the job's alone
    its note                  where it is a repeat, then its owner's media where that was the last to hold them
    media                     its own, unless repeats refer to them: closed, looked again, unlisted, told, removed

The sweep (`sweep`) repeats a removal once more after a while, in case somebody was writing for the video meanwhile, and
then takes the marker away. Must not decide who may delete what.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from adaptivegen.errors import Conflict, InternalError
from adaptivegen.jobs.purges import Purge, note, tell
from adaptivegen.jobs.rating import PREFIX as RATINGS
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.sharing import held, is_closed, release, unlist
from adaptivegen.jobs.spec import Deleted, JobSpec, Tombstone, deleting_key, job_key, owner_of, pending_key
from adaptivegen.jobs.store import PARTS, JobStore
from adaptivegen.jobs.uploads import uploads_of
from adaptivegen.telemetry import get_logger


@dataclass(slots=True)
class Removed:
    """What a removal has done. cancelled: the record of a video that was ended for it; kept: repeats still refer to
    its media; unclear: one may, so that it has to be repeated."""

    freed_bytes: int = 0
    cancelled: JobRecord | None = None
    kept: bool = False
    unclear: bool = False
    shas: list[str] = field(default_factory=list)


async def remove(jobs: JobStore, tenant: str, job_id: str, *, by: str = "") -> Removed:
    """Delete a video, or go on with that. by: who ordered it, empty for its tenant.

    Raises NotFound for one that never was, and what store and broker raise: then the sweep goes on.
    """
    done = Removed()
    stone = await jobs.tombstone(tenant, job_id)
    if stone is None:
        try:
            stone = await _bury(jobs, tenant, job_id, done, by=by)
        except Deleted:  # by another, this very moment
            stone = await jobs.tombstone(tenant, job_id)
            if stone is None:
                raise
    await jobs.index.forget(tenant, job_id)
    keys = [pending_key(tenant, job_id), f"{RATINGS}{tenant}/{job_id}"]
    for key in (*keys, *(job_key(tenant, job_id, part) for part in PARTS)):
        await jobs.blob.delete(key)
    for upload in await uploads_of(jobs, tenant, job_id):
        await jobs.blob.delete(upload.key)
        done.freed_bytes += upload.size_bytes
    if stone.owner:
        await release(jobs, tenant, job_id, stone.owner)
        await _collect(jobs, tenant, stone.owner, done)
    await _collect(jobs, tenant, job_id, done, content_key=stone.content_key)
    purge = Purge(tenant=tenant, videos=(job_id,), sha256=tuple(done.shas), deleted=True, freed_bytes=done.freed_bytes)
    await tell(jobs.bus, purge)
    return done


async def _bury(jobs: JobStore, tenant: str, job_id: str, done: Removed, *, by: str) -> Tombstone:
    """End the job and put its tombstone."""
    spec = await _spec(jobs, tenant, job_id)  # raises NotFound before anything is written
    await jobs.blob.put(deleting_key(tenant, job_id), b"")
    try:
        if await jobs.manifest(tenant, job_id) is None and not (await jobs.find(tenant, job_id)).ended:
            done.cancelled = await jobs.cancel(tenant, job_id)
    except (Conflict, InternalError):  # it ended otherwise meanwhile, or cannot be read
        pass
    owner = await _owner(jobs, tenant, job_id)
    standing = await jobs.tombstone(tenant, job_id)
    if standing is not None:  # another was faster, and may have removed already what told the owner
        return standing
    stone = Tombstone(
        id=job_id,
        tenant=tenant,
        deleted_at_ns=jobs.clock.now_ns(),
        by=by[:500],
        content_key=spec.content_key if spec is not None else "",
        owner=owner,
    )
    await jobs.blob.put(job_key(tenant, job_id, "spec"), stone.encode())
    get_logger().info("video_deleted", job_id=job_id, tenant=tenant, by=by or "its tenant")
    return stone


async def _spec(jobs: JobStore, tenant: str, job_id: str) -> JobSpec | None:
    """The spec, None for one that is damaged: also such a video can be deleted. Raises NotFound."""
    try:
        return await jobs.spec(tenant, job_id)
    except InternalError:
        return None


async def _owner(jobs: JobStore, tenant: str, job_id: str) -> str:
    """The job that made the media which this one refers to; empty where those are its own."""
    try:
        manifest, draft = await jobs.manifest(tenant, job_id), await jobs.draft(tenant, job_id)
    except InternalError:
        return ""
    clips = [manifest.final if manifest is not None else None, draft.media if draft is not None else None]
    owners = {owner_of(clip) for clip in clips if clip is not None} - {job_id, ""}
    return min(owners, default="")


async def _collect(jobs: JobStore, tenant: str, owner: str, done: Removed, *, content_key: str = "") -> None:
    """Remove a deleted job's media, unless others refer to them."""
    stone = await jobs.tombstone(tenant, owner)
    if stone is None:
        return
    found = await held(jobs, tenant, owner)
    folder = f"out/{tenant}/{owner}/"
    if found == "no":
        if not await is_closed(jobs, tenant, owner):
            clips = sorted([meta.key async for meta in jobs.blob.list(folder)])
            await jobs.blob.put_if_absent(job_key(tenant, owner, "closed"), json.dumps(clips).encode())
        found = await held(jobs, tenant, owner)  # a repeat that looked before it was closed
    if found != "no":
        done.unclear = done.unclear or found == "unclear"
        done.kept = True
        return
    if key := content_key or stone.content_key:
        await unlist(jobs, tenant, key, owner)
    clips = await _closed(jobs, tenant, owner)
    shas = {key.rpartition("/")[2].removesuffix(".mp4") for key in clips}
    metas = [meta async for meta in jobs.blob.list(folder)]
    for meta in metas:
        await jobs.blob.delete(meta.key)
        done.freed_bytes += meta.size_bytes
    shas |= {meta.key.rpartition("/")[2].removesuffix(".mp4") for meta in metas}
    await note(jobs.blob, shas, clock=jobs.clock)  # after them: nobody can fetch them again
    done.shas += sorted(shas)


async def _closed(jobs: JobStore, tenant: str, owner: str) -> list[str]:
    """Keys of the clips that were there when the owner was closed; none where that was damaged since."""
    try:
        return [str(key) for key in json.loads(await jobs.blob.get(job_key(tenant, owner, "closed")))]
    except (ValueError, TypeError):
        return []
