"""Which jobs refer to the media of another: repeats do, that were answered with what an earlier job had made.

A repeat writes a note under the owner of the media (`hold`) before it writes anything that refers to them. The notes
say where to look, the manifests what is true: a note of a job that refers to something else counts for nothing.

The numbered danger: (1) a removal finds that nobody refers to the owner's media, (2) a repeat decides to, (3) the media
go. So a removal closes the owner, for ever, before it looks for notes the second time, and a repeat looks whether it is
closed after its note is written: one of them sees the other.
"""

from __future__ import annotations

from typing import Literal

from adaptivegen.batches import AT_ONCE, read_all
from adaptivegen.errors import InternalError, NotFound
from adaptivegen.jobs.spec import Deleted, Media, content_index_key, holders_of, job_key, owner_of
from adaptivegen.jobs.store import JobStore

COMPLETE = "holders-complete"  # every repeat of the store has its note; those of earlier versions wrote none
ABANDONED_S = 3600.0  # a note of a job without a spec for this long belongs to no submission under way
Held = Literal["yes", "no", "unclear"]


async def hold(jobs: JobStore, tenant: str, job_id: str, media: Media) -> bool:
    """Before a job refers to `media`: note that it does. False where they are going: then it may not. True for its
    own."""
    owner = owner_of(media)
    if owner in ("", job_id):
        return True
    await jobs.blob.put(_note(tenant, owner, job_id), b"")
    return not await is_closed(jobs, tenant, owner)  # the note may be another attempt's of this id, too: it stays


async def release(jobs: JobStore, tenant: str, job_id: str, owner: str) -> None:
    """Take a job's note away."""
    await jobs.blob.delete(_note(tenant, owner, job_id))


async def is_closed(jobs: JobStore, tenant: str, owner: str) -> bool:
    """Whether nobody may refer to a job's media any more."""
    return await _has(jobs, job_key(tenant, owner, "closed"))


async def unlist(jobs: JobStore, tenant: str, content_key: str, owner: str) -> None:
    """Let no repeat find the owner's final by its content key any more; another's stays."""
    entry = await jobs.content(tenant, content_key)
    if entry is not None and entry.id == owner:
        await jobs.blob.delete(content_index_key(tenant, content_key))


async def held(jobs: JobStore, tenant: str, owner: str) -> Held:
    """Whether a job refers to the owner's media. Unclear: a repeat is under way that may, or not all have notes."""
    found: Held = "no" if await _has(jobs, COMPLETE) else "unclear"
    prefix = holders_of(tenant, owner)
    async for meta in jobs.blob.list(prefix):
        one = await _holds(jobs, tenant, meta.key.removeprefix(prefix), owner)
        if one == "unclear" and jobs.clock.now_ns() - meta.last_modified_ns > ABANDONED_S * 1e9:
            one = "no"
        if one == "yes":
            return "yes"
        if one == "unclear":
            found = "unclear"
    return found


async def note_repeats(jobs: JobStore) -> int:
    """Write the notes of all repeats in the store, once and for all; returns how many. Until then no media are
    removed. Raises a storage error: then it is to be called again."""
    if await _has(jobs, COMPLETE):
        return 0
    found = 0
    batch: list[tuple[str, str]] = []
    async for name in jobs.specs():
        batch.append(name)
        if len(batch) == AT_ONCE:
            found += sum(await read_all(batch, lambda one: _note_repeat(jobs, *one)))
            batch.clear()
    found += sum(await read_all(batch, lambda one: _note_repeat(jobs, *one)))
    await jobs.blob.put(COMPLETE, b"")
    return found


async def _note_repeat(jobs: JobStore, tenant: str, job_id: str) -> bool:
    try:
        manifest = await jobs.manifest(tenant, job_id)
    except InternalError:  # it cannot be told what it refers to
        return False
    owner = owner_of(manifest.final) if manifest is not None and manifest.final is not None else job_id
    if owner in ("", job_id):
        return False
    await jobs.blob.put(_note(tenant, owner, job_id), b"")
    return True


async def _has(jobs: JobStore, key: str) -> bool:
    try:
        await jobs.blob.head(key)
    except NotFound:
        return False
    return True


async def _holds(jobs: JobStore, tenant: str, job_id: str, owner: str) -> Held:
    """A repeat's spec comes last: one with a spec and no manifest is none. What is damaged is left alone."""
    try:
        await jobs.first_spec(tenant, job_id)
        manifest, draft = await jobs.manifest(tenant, job_id), await jobs.draft(tenant, job_id)
    except Deleted:
        return "no"
    except NotFound:
        return "unclear"
    except InternalError:
        return "yes"
    clips = (manifest.final if manifest else None, draft.media if draft else None)
    return "yes" if owner in {owner_of(clip) for clip in clips if clip is not None} else "no"


def _note(tenant: str, owner: str, job_id: str) -> str:
    return f"{holders_of(tenant, owner)}{job_id}"
