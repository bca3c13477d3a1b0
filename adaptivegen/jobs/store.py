"""Where jobs live: the object store (truth), the `jobs` bucket (index) and the queues (transport), in one agreed order.

Decides the order of writes, so that a crash between any two of them loses no accepted job:

    submit   pending marker, spec (put-if-absent), record, queue message, then the answer
    repeat   draft, manifest, spec: complete once it exists, so nothing is ever pending
    upgrade  the upgrade's spec, pending marker, record, queue message, then the answer
    end      manifest (put-if-absent), record, pending marker away, then the acknowledgement

A video is deleted by `removal`: a tombstone in place of its spec. From then on reading it raises Deleted, and whoever
was writing for it takes that back.

Every step can be repeated, and whoever comes second goes on with what stands. Used by edges, workers and schedulers
alike; it must not know any of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from adaptivegen.batches import read_all
from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus, KeyValue
from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    Conflict,
    InternalError,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from adaptivegen.ids import check_name, check_video_id
from adaptivegen.jobs.events import JobEvent, cancel_subject, event_subject
from adaptivegen.jobs.index import JobIndex
from adaptivegen.jobs.record import JobRecord, apply_manifest, draft_stored, rebuild, upgrade
from adaptivegen.jobs.spec import (
    ContentEntry,
    Deleted,
    DraftManifest,
    JobSpec,
    KeyBinding,
    Manifest,
    Media,
    Tombstone,
    content_index_key,
    idempotency_key,
    job_key,
    owner_of,
    pending_key,
)
from adaptivegen.telemetry import carry, get_logger

JOBS_BUCKET = "jobs"
IDEMPOTENCY_BUCKET = "idempotency"
IDEMPOTENCY_TTL_S = 24 * 3600.0
PARTS: tuple[Literal["upgrade", "draft", "manifest"], ...] = ("upgrade", "draft", "manifest")  # beside the spec
REPEATS_DROPPED_S = 110.0  # of the broker's window of two minutes
Stored = TypeVar("Stored", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class JobMessage:
    """What the queue carries: just enough to find the spec."""

    tenant: str
    id: str

    def encode(self) -> bytes:
        """JSON for the wire."""
        return json.dumps({"tenant": self.tenant, "id": self.id}).encode()

    @classmethod
    def decode(cls, data: bytes) -> JobMessage:
        """Parse; raises InternalError, since only our own processes write here. What it names is legal in keys."""
        try:
            value = json.loads(data)
            return cls(tenant=check_name(value["tenant"], field="tenant"), id=check_video_id(value["id"]))
        except (ValueError, KeyError, TypeError, RecursionError, InvalidRequest) as exc:
            raise InternalError(f"not a job message: {data[:80]!r}") from exc


class JobStore:
    """Jobs by tenant and id. All methods raise StorageFailure or BrokerUnavailable when a part does not answer."""

    def __init__(self, *, blob: BlobStore, bus: Bus, clock: Clock) -> None:
        self.blob = blob
        self.bus = bus
        self.clock = clock
        self.index = JobIndex(self._bucket, rebuild=self.from_store)

    async def _bucket(self) -> KeyValue:
        return await self.bus.kv(JOBS_BUCKET)

    def of(self, tenant: str, job_id: str) -> JobStore:
        """The store that holds the job: this one. An edge with a spool has two."""
        return self

    # ---- submission -------------------------------------------------------------------------------------------

    async def reserve(self, *, tenant: str, key: str, job_id: str, body_digest: str) -> str:
        """Bind an idempotency key to a job id for a day; returns the id that holds it (ours, or an earlier one's).

        The broker decides between requests in flight; the object store remembers, should the broker lose its data.
        Raises Conflict when the key was used with another body.
        """
        bucket = await self.bus.kv(IDEMPOTENCY_BUCKET, ttl_s=IDEMPOTENCY_TTL_S)
        now_ns = self.clock.now_ns()
        mine = KeyBinding(id=job_id, body=body_digest, at_ns=now_ns)
        name = f"{tenant}.{key.encode().hex()}"
        try:
            await bucket.create(name, mine.encode())
        except PreconditionFailed:
            entry = await bucket.get(name)
            if entry is None:
                raise Unavailable(f"idempotency key {key!r} expired while it was read; send it again") from None
            return self._held(KeyBinding.model_validate_json(entry.value), key, body_digest)
        stored_key = idempotency_key(tenant, key)
        if await self.blob.put_if_absent(stored_key, mine.encode()):
            return job_id
        stored = await self._load(KeyBinding, stored_key)
        if stored is None or now_ns - stored.at_ns >= IDEMPOTENCY_TTL_S * 1e9:
            await self.blob.put(stored_key, mine.encode())
            return job_id
        await bucket.put(name, stored.encode())
        return self._held(stored, key, body_digest)

    @staticmethod
    def _held(binding: KeyBinding, key: str, body_digest: str) -> str:
        if binding.body != body_digest:
            raise Conflict(f"idempotency key {key!r} was used with another body", param="idempotency_key")
        return binding.id

    async def submit(self, spec: JobSpec, draft: DraftManifest | None = None) -> tuple[JobSpec, JobRecord]:
        """Make the job durable and queue it (unless only a draft is wanted); the caller may then answer 202.

        draft: one that is stored already; its manifest goes before the spec, so that no worker begins without it.

        Returns the spec and the record that stand: of two submissions of one id the first to write its spec wins, and
        the other goes on with that. When the index or the queue does not acknowledge, the error goes to the client, and
        the job stays: its spec is durable, so the reconciler will run it, and the same idempotency key finds it.
        Taking it back is not possible safely: the lost answer may have been a success.
        """
        await self.blob.put(pending_key(spec.tenant, spec.id), b"")
        if draft is not None:
            await self.blob.put(job_key(spec.tenant, spec.id, "draft"), draft.encode())
        if not await self.blob.put_if_absent(job_key(spec.tenant, spec.id, "spec"), spec.encode()):
            async with self._alive(spec.tenant, spec.id):
                spec = await self.spec(spec.tenant, spec.id)
                return spec, await self.resume(spec)
        return spec, await self._index_and_queue(spec, rebuild(spec, draft=draft, manifest=None), first=True)

    async def resume(self, spec: JobSpec) -> JobRecord:
        """Index and queue a job whose spec is durable, as far as an earlier attempt did not get; its record."""
        return await self._index_and_queue(spec, await self._as_stored(spec), first=False)

    async def _index_and_queue(self, spec: JobSpec, as_stored: JobRecord, *, first: bool) -> JobRecord:
        """The message of a later attempt has the id of the first, which the broker drops as a repeat for two minutes;
        after them the job is the reconciler's, so that no client can fill the queue with copies of its job."""
        record = await self.index.create(as_stored, known=not first)
        if as_stored.ended and not record.ended and (manifest := await self.manifest(spec.tenant, spec.id)):
            return (await self.finish(manifest))[0]
        age_s = (self.clock.now_ns() - record.updated_at_ns) / 1e9
        if record.want_final and record.status == "queued" and (first or age_s < REPEATS_DROPPED_S):
            token = "upgrade" if spec.upgrade else "submit"
            await self.enqueue(spec.tenant, spec.id, pool=spec.decision.pool, token=token, trace=spec.trace)
        return record

    async def enqueue(self, tenant: str, job_id: str, *, pool: str, token: str, trace: dict[str, str]) -> None:
        """Publish the job to a pool's queue. `token` tells repeats (dropped) from intended further messages."""
        queue = await self.bus.work_queue(pool)
        message = JobMessage(tenant=tenant, id=job_id)
        await queue.publish(message.encode(), msg_id=f"{job_id}.{token}", headers=trace)

    async def record_hit(self, spec: JobSpec, draft: DraftManifest | None, manifest: Manifest) -> JobRecord:
        """Store a job that is complete from the start (an earlier job made its final). Nothing is queued.

        The spec comes last: the job exists with it, and is complete at that moment. What refers to another's media was
        noted before (`sharing.hold`).
        """
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: self.blob.put_if_absent(job_key(spec.tenant, spec.id, "manifest"), manifest.encode())
        ]
        if draft is not None:
            writes.append(lambda: self.blob.put(job_key(spec.tenant, spec.id, "draft"), draft.encode()))
        await read_all(writes, lambda write: write())  # at once: a repeat is to be quick
        await self.blob.put_if_absent(job_key(spec.tenant, spec.id, "spec"), spec.encode())
        async with self._alive(spec.tenant, spec.id):
            record = await self.index.create(await self.from_store(spec.tenant, spec.id), known=True)
            if record.ended:
                return record
            standing = await self.manifest(spec.tenant, spec.id)  # another attempt had submitted it: it ends here
            return (await self.finish(standing or manifest))[0]

    # ---- reading ----------------------------------------------------------------------------------------------

    async def find(self, tenant: str, job_id: str) -> JobRecord:
        """The record, from the index or, where it is missing or out of reach, from the object store.

        Raises NotFound."""
        return await self.index.find(tenant, job_id)

    async def from_store(self, tenant: str, job_id: str) -> JobRecord:
        """The record as the object store alone tells it; raises NotFound."""
        return await self._as_stored(await self.spec(tenant, job_id))

    async def _as_stored(self, spec: JobSpec) -> JobRecord:
        draft, manifest = await self.draft(spec.tenant, spec.id), await self.manifest(spec.tenant, spec.id)
        return rebuild(spec, draft=draft, manifest=manifest)

    async def spec(self, tenant: str, job_id: str) -> JobSpec:
        """The job's spec as last written (the upgrade's, once asked for); raises NotFound, Deleted."""
        first = await self.first_spec(tenant, job_id)
        return await self._load(JobSpec, job_key(tenant, job_id, "upgrade")) or first

    async def first_spec(self, tenant: str, job_id: str) -> JobSpec:
        """The job's spec as first written; raises NotFound, Deleted."""
        try:
            spec = await self._load(JobSpec, job_key(tenant, job_id, "spec"))
        except InternalError:
            if await self.tombstone(tenant, job_id) is None:
                raise
            raise Deleted(f"video {job_id!r} was deleted", param="id") from None
        if spec is None:
            raise NotFound(f"no video {job_id!r}", param="id")
        return spec

    async def tombstone(self, tenant: str, job_id: str) -> Tombstone | None:
        """What is left of a deleted video; None for one that is there, never was, or is damaged."""
        try:
            return await self._load(Tombstone, job_key(tenant, job_id, "spec"))
        except InternalError:
            return None

    async def draft(self, tenant: str, job_id: str) -> DraftManifest | None:
        """The stored draft, if there is one. A damaged one is as good as none: a draft can be done without."""
        try:
            return await self._load(DraftManifest, job_key(tenant, job_id, "draft"))
        except InternalError as exc:
            get_logger().warning("draft_manifest_unreadable", job_id=job_id, error=exc.message)
            return None

    async def manifest(self, tenant: str, job_id: str) -> Manifest | None:
        """The job's outcome, once it has one."""
        return await self._load(Manifest, job_key(tenant, job_id, "manifest"))

    async def content(self, tenant: str, content_key: str) -> ContentEntry | None:
        """The final a content key already has. A damaged entry is a miss."""
        try:
            return await self._load(ContentEntry, content_index_key(tenant, content_key))
        except InternalError as exc:
            get_logger().warning("content_entry_unreadable", error=exc.message)
            return None

    async def specs(self) -> AsyncIterator[tuple[str, str]]:
        """(tenant, id) of every job there is, from the object store."""
        async for meta in self.blob.list("jobs/"):
            parts = meta.key.split("/")
            if len(parts) == 4 and parts[3] == "spec":
                yield parts[1], parts[2]

    async def pending(self) -> AsyncIterator[tuple[str, str, int]]:
        """(tenant, id, marked at) of every job that may still need work, from the object store; wall nanoseconds."""
        async for meta in self.blob.list("pending/"):
            tenant, _, job_id = meta.key.removeprefix("pending/").partition(".")
            yield tenant, job_id, meta.last_modified_ns

    # ---- changing ---------------------------------------------------------------------------------------------

    async def change(self, tenant: str, job_id: str, step: Callable[[JobRecord], JobRecord]) -> JobRecord:
        """Apply a pure transition to the record (`JobIndex.change`)."""
        return await self.index.change(tenant, job_id, step)

    async def store_draft(self, tenant: str, job_id: str, draft: DraftManifest) -> JobRecord:
        """Write the draft's manifest and index it; a draft-only job ends with it."""
        await self.blob.put(job_key(tenant, job_id, "draft"), draft.encode())
        async with self._alive(tenant, job_id, draft.media):
            record = await self.change(tenant, job_id, lambda record: draft_stored(record, draft))
        if record.ended:
            await self.clear(tenant, job_id)
        return record

    async def clear(self, tenant: str, job_id: str) -> None:
        """Take the pending marker of a job away that needs no work; put back if the job turns out to need some.

        Whoever makes work for a job writes its spec before the marker, so looking after the deletion misses none.
        """
        await self.blob.delete(pending_key(tenant, job_id))
        try:
            record = await self.from_store(tenant, job_id)
        except NotFound:
            return
        if not record.ended:
            await self.blob.put(pending_key(tenant, job_id), b"")

    async def finish(self, manifest: Manifest) -> tuple[JobRecord, bool]:
        """Give the job its one outcome. Returns the record and whether this manifest won (else an earlier one did).

        Raises Deleted, with the clip of this manifest removed."""
        stands = await self.decide_outcome(manifest)
        async with self._alive(manifest.tenant, manifest.id, manifest.final):
            record = await self.change(manifest.tenant, manifest.id, lambda record: apply_manifest(record, stands))
        await self.blob.delete(pending_key(manifest.tenant, manifest.id))
        return record, stands == manifest  # also where the answer to our own put was lost

    async def decide_outcome(self, manifest: Manifest) -> Manifest:
        """Write a job's outcome, and nothing else of it: whoever writes its spec later finds that it has ended. Returns
        the outcome that stands, an earlier one where there is one."""
        if await self.blob.put_if_absent(job_key(manifest.tenant, manifest.id, "manifest"), manifest.encode()):
            return manifest
        standing = await self.manifest(manifest.tenant, manifest.id)
        if standing is None:
            raise InternalError(f"manifest of {manifest.id} exists and cannot be read")
        return standing

    async def index_content(self, spec: JobSpec, entry: ContentEntry) -> None:
        """Remember the final of a content key; the first one stays."""
        await self.blob.put_if_absent(content_index_key(spec.tenant, spec.content_key), entry.encode())

    async def cancel(self, tenant: str, job_id: str) -> JobRecord:
        """End an unfinished job; cancelling twice is fine. Raises Conflict for one that ended otherwise."""
        record = await self.find(tenant, job_id)
        if not record.ended and not record.want_final:
            record = await self.from_store(tenant, job_id)  # its draft may have ended it a moment ago
        if not record.ended:
            now_ns = self.clock.now_ns()
            cancelled = Manifest(
                id=job_id, tenant=tenant, outcome="cancelled", epoch=record.epoch, finished_at_ns=now_ns
            )
            record, _ = await self.finish(cancelled)
            try:
                await self.bus.publish(cancel_subject(job_id), job_id.encode(), headers=carry())
            except AdaptiveGenError as exc:  # only a hint: the worker sees the record at its next renewal
                get_logger().warning("cancel_hint_not_sent", job_id=job_id, error=exc.message)
        if record.status != "cancelled":
            raise Conflict(f"video {job_id} is {record.status} and cannot be cancelled", param="id")
        return record

    async def ask_final(self, spec: JobSpec) -> JobRecord:
        """Queue the final of a draft-only job; `spec` is the new spec with its new decision. Raises Conflict.

        Asking again is fine, and finishes what an attempt that died has begun.
        """
        record = await self.find(spec.tenant, spec.id)
        upgrade(record, plan="refine", eta_s=0.0, now_ns=0)  # refuses before anything is written
        if not record.want_final and record.draft is None:
            raise Conflict(f"video {spec.id} is {record.status} and has no draft yet", param="id")
        asked = spec.model_copy(update={"want_final": True, "upgrade": True})
        async with self._alive(spec.tenant, spec.id):
            if not await self.blob.put_if_absent(job_key(spec.tenant, spec.id, "upgrade"), asked.encode()):
                asked = await self.spec(spec.tenant, spec.id)
            await self.blob.put(pending_key(spec.tenant, spec.id), b"")
            await self.index_upgrade(asked)
            return await self.resume(asked)

    async def index_upgrade(self, spec: JobSpec) -> JobRecord:
        """Write into the record that a draft-only job's final is wanted, as `spec` (the upgrade's) says."""
        chosen = spec.decision.chosen()
        eta_s = (chosen.final_s or 0.0) if chosen else 0.0
        now_ns = self.clock.now_ns()
        return await self.change(
            spec.tenant, spec.id, lambda record: upgrade(record, plan=spec.decision.plan, eta_s=eta_s, now_ns=now_ns)
        )

    async def announce(self, event: JobEvent) -> None:
        """Publish an event, best effort: the record is what counts."""
        subject = event_subject(event.record.tenant, event.record.id)
        await self.bus.publish(subject, event.encode(), headers=carry())

    # ---- parts ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _alive(self, tenant: str, job_id: str, clip: Media | None = None) -> AsyncIterator[None]:
        """Inside it may turn out that the video was deleted meanwhile: then what was written for it goes, its own
        `clip` too, and Deleted goes on."""
        try:
            yield
        except Deleted:
            keys = [pending_key(tenant, job_id), *(job_key(tenant, job_id, part) for part in PARTS)]
            for key in (*keys, *([clip.key] if clip is not None and owner_of(clip) == job_id else [])):
                await self.blob.delete(key)
            raise

    async def _load(self, cls: type[Stored], key: str) -> Stored | None:
        try:
            data = await self.blob.get(key)
        except NotFound:
            return None
        try:
            return cls.model_validate_json(data)
        except ValidationError as exc:
            raise InternalError(f"stored object {key} is not a {cls.__name__}: {exc.error_count()} errors") from exc
