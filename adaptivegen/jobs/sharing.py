"""Which jobs refer to the media of another: repeats do, that were answered with what an earlier job had made.

A repeat writes a note under the owner of the media (`hold`) before it writes anything that refers to them. The notes
say where to look, the manifests what is true: a note of a job that refers to something else counts for nothing.

The numbered danger: (1) a removal finds that nobody refers to the owner's media, (2) a repeat decides to, (3) the media
go. So a removal closes the owner, for ever, before it looks for notes the second time, and a repeat looks whether it is
closed after its note is written: one of them sees the other.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Literal

from adaptivegen.batches import AT_ONCE, read_all
from adaptivegen.blob.moment import store_now_ns
from adaptivegen.errors import AdaptiveGenError, InternalError, NotFound, Unavailable
from adaptivegen.jobs.spec import Deleted, Media, content_index_key, holders_of, job_key, owner_of
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.troubles import Troubles
from adaptivegen.telemetry import get_logger

COMPLETE = "holders-complete"  # every repeat has its note, those of earlier versions too, but for the jobs listed here
MOST_UNREAD = 100
ABANDONED_S = 3600.0  # a note of a job without a spec for this long belongs to no submission under way
Held = Literal["yes", "no", "unclear"]
Name = tuple[str, str]  # tenant, id


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
    unread = await _unread(jobs)
    found: Held = "unclear" if unread is None or any(of == tenant for of, _ in unread) else "no"
    prefix = holders_of(tenant, owner)
    now_ns: int | None = None  # the store's moment, where it is needed
    async for meta in jobs.blob.list(prefix):
        one = await _holds(jobs, tenant, meta.key.removeprefix(prefix), owner)
        if one == "unclear":
            now_ns = now_ns if now_ns is not None else await store_now_ns(jobs.blob)
            one = "no" if now_ns - meta.last_modified_ns > ABANDONED_S * 1e9 else one
        if one == "yes":
            return "yes"
        if one == "unclear":
            found = "unclear"
    return found


async def note_repeats(jobs: JobStore, troubles: Troubles | None = None) -> tuple[int, int]:
    """Write the notes of all repeats in the store, once and for all, until which no media are removed; how many were
    written, and how many jobs could not be read. While there is one, no media of its tenant are removed: it may refer
    to any of them; the others' are. It is to be called again for it, and after a storage error, or the Unavailable that
    so many unread jobs raise that the store itself must be ill."""
    unread = await _unread(jobs)
    if unread == []:
        return 0, 0
    troubles, now_s = troubles or Troubles(), jobs.clock.monotonic_s()
    found = 0
    left: list[Name] = []
    batch: list[Name] = []

    async def go_through() -> None:
        nonlocal found
        for name, noted in zip(batch, await read_all(batch, lambda one: _try_repeat(jobs, one, troubles)), strict=True):
            found += bool(noted)
            if noted is None:
                left.append(name)
        batch.clear()
        if len(left) > MOST_UNREAD:
            raise Unavailable(f"more than {MOST_UNREAD} jobs cannot be read; the repeats are noted when they can")

    async for name in jobs.specs() if unread is None else _each(unread):
        if unread is not None and not troubles.due(_named(name), now_s=now_s):
            left.append(name)
            continue
        batch.append(name)
        if len(batch) == AT_ONCE:
            await go_through()
    await go_through()
    if left != unread:
        await jobs.blob.put(COMPLETE, json.dumps(left).encode() if left else b"")
    return found, len(left)


async def _each(names: list[Name]) -> AsyncIterator[Name]:
    for name in names:
        yield name


async def _unread(jobs: JobStore) -> list[Name] | None:
    """The jobs that may be repeats without a note; None where not all were gone through yet."""
    try:
        data = await jobs.blob.get(COMPLETE)
        return [(str(tenant), str(job_id)) for tenant, job_id in json.loads(data)] if data else []
    except (NotFound, ValueError, TypeError):
        return None


async def _try_repeat(jobs: JobStore, name: Name, troubles: Troubles) -> bool | None:
    """Whether it is a repeat, and has its note; None where that cannot be told."""
    try:
        noted = await _note_repeat(jobs, *name)
    except AdaptiveGenError as exc:
        if troubles.failed(_named(name), exc.message, now_s=jobs.clock.monotonic_s()):
            tenant, job_id = name
            get_logger().warning("repeat_not_read", job_id=job_id, tenant=tenant, code=exc.code, error=exc.message)
        return None
    troubles.over(_named(name))
    return noted


def _named(name: Name) -> str:
    return f"repeat {name[0]}.{name[1]}"


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
