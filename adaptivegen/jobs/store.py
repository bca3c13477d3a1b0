"""Where jobs live: the object store (truth) and the `jobs` bucket (index), read and written in one agreed order.

Decides the order of writes, so that a crash between any two of them loses no accepted job:
submit: pending marker, spec, record, queue message, then the answer. End: manifest (put-if-absent), record, pending
marker away, then the acknowledgement. Every step can be repeated. Used by edges, workers and schedulers alike; it must
not know any of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus, KeyValue
from adaptivegen.clock import Clock
from adaptivegen.errors import (
    BrokerUnavailable,
    Conflict,
    InternalError,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from adaptivegen.jobs.events import JobEvent, cancel_subject, event_subject
from adaptivegen.jobs.record import JobRecord, apply_manifest, draft_stored, new_record, rebuild, upgrade
from adaptivegen.jobs.spec import (
    ContentEntry,
    DraftManifest,
    JobSpec,
    Manifest,
    content_index_key,
    job_key,
    pending_key,
    record_key,
)

JOBS_BUCKET = "jobs"
IDEMPOTENCY_BUCKET = "idempotency"
IDEMPOTENCY_TTL_S = 24 * 3600.0
CAS_ATTEMPTS = 16
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
        """Parse; raises InternalError, since only our own processes write here."""
        try:
            value = json.loads(data)
            return cls(tenant=str(value["tenant"]), id=str(value["id"]))
        except (ValueError, KeyError, TypeError) as exc:
            raise InternalError(f"not a job message: {data[:80]!r}") from exc


class JobStore:
    """Jobs by tenant and id. All methods raise StorageFailure or BrokerUnavailable when a part does not answer."""

    def __init__(self, *, blob: BlobStore, bus: Bus, clock: Clock, ack_wait_s: float) -> None:
        self.blob = blob
        self.bus = bus
        self.clock = clock
        self.ack_wait_s = ack_wait_s

    async def _records(self) -> KeyValue:
        return await self.bus.kv(JOBS_BUCKET)

    # ---- submission -------------------------------------------------------------------------------------------

    async def reserve(self, *, tenant: str, key: str, job_id: str, body_digest: str) -> str:
        """Bind an idempotency key to a job id; returns the id that holds it (ours, or an earlier one's).

        Raises Conflict when the key was used with another body.
        """
        bucket = await self.bus.kv(IDEMPOTENCY_BUCKET, ttl_s=IDEMPOTENCY_TTL_S)
        value = json.dumps({"id": job_id, "body": body_digest}).encode()
        name = f"{tenant}.{key.encode().hex()}"
        try:
            await bucket.create(name, value)
            return job_id
        except PreconditionFailed:
            entry = await bucket.get(name)
        if entry is None:
            raise Unavailable(f"idempotency key {key!r} expired while it was read; send the request again")
        held = json.loads(entry.value)
        if held["body"] != body_digest:
            raise Conflict(f"idempotency key {key!r} was used with another body", param="idempotency_key")
        return str(held["id"])

    async def submit(self, spec: JobSpec) -> JobRecord:
        """Make the job durable and queue it (unless only a draft is wanted); the caller may then answer 202.

        When the index or the queue does not acknowledge, the error goes to the client, and the job stays: its spec is
        durable, so the reconciler will run it, and the same idempotency key finds it. Taking it back is not possible
        safely: the lost answer may have been a success.
        """
        await self.blob.put(pending_key(spec.tenant, spec.id), b"")
        await self.blob.put(job_key(spec.tenant, spec.id, "spec"), spec.encode())
        record = new_record(spec)
        await self._create(record)
        if spec.want_final:
            await self.enqueue(spec.tenant, spec.id, pool=spec.decision.pool, token="submit", trace=spec.trace)
        return record

    async def enqueue(self, tenant: str, job_id: str, *, pool: str, token: str, trace: dict[str, str]) -> None:
        """Publish the job to a pool's queue. `token` tells repeats (dropped) from intended further messages."""
        queue = await self.bus.work_queue(pool, ack_wait_s=self.ack_wait_s)
        message = JobMessage(tenant=tenant, id=job_id)
        await queue.publish(message.encode(), msg_id=f"{job_id}.{token}", headers=trace)

    async def record_hit(self, spec: JobSpec, draft: DraftManifest | None, manifest: Manifest) -> JobRecord:
        """Store a job that is complete from the start (an earlier job made its final). Nothing is queued, and nothing
        is pending: until this returns the client has no answer, so a crash leaves no accepted job behind."""
        parts: list[tuple[Literal["spec", "draft", "manifest"], bytes]] = [
            ("spec", spec.encode()),
            ("manifest", manifest.encode()),
        ]
        if draft is not None:
            parts.append(("draft", draft.encode()))
        async with asyncio.TaskGroup() as group:
            for part, data in parts:
                group.create_task(self.blob.put(job_key(spec.tenant, spec.id, part), data))
        record = rebuild(spec, draft=draft, upgrade_asked=False, manifest=manifest)
        await self._create(record)
        return record

    # ---- reading ----------------------------------------------------------------------------------------------

    async def find(self, tenant: str, job_id: str) -> JobRecord:
        """The record, from the index or, where it is missing or out of reach, from the object store.

        Raises NotFound."""
        try:
            entry = await (await self._records()).get(record_key(tenant, job_id))
        except BrokerUnavailable:
            return await self.from_store(tenant, job_id)
        if entry is not None:
            return JobRecord.model_validate_json(entry.value)
        record = await self.from_store(tenant, job_id)
        await self._create(record)
        return record

    async def from_store(self, tenant: str, job_id: str) -> JobRecord:
        """The record as the object store alone tells it; raises NotFound."""
        spec = await self.spec(tenant, job_id)
        return rebuild(
            spec,
            draft=await self.draft(tenant, job_id),
            upgrade_asked=await self._exists(job_key(tenant, job_id, "upgrade")),
            manifest=await self.manifest(tenant, job_id),
        )

    async def spec(self, tenant: str, job_id: str) -> JobSpec:
        """The job's spec as last written (the upgrade's, once asked for); raises NotFound."""
        upgraded = await self._load(JobSpec, job_key(tenant, job_id, "upgrade"))
        spec = upgraded or await self._load(JobSpec, job_key(tenant, job_id, "spec"))
        if spec is None:
            raise NotFound(f"no video {job_id!r}", param="id")
        return spec

    async def draft(self, tenant: str, job_id: str) -> DraftManifest | None:
        """The stored draft, if there is one."""
        return await self._load(DraftManifest, job_key(tenant, job_id, "draft"))

    async def manifest(self, tenant: str, job_id: str) -> Manifest | None:
        """The job's outcome, once it has one."""
        return await self._load(Manifest, job_key(tenant, job_id, "manifest"))

    async def content(self, tenant: str, content_key: str) -> ContentEntry | None:
        """The final a content key already has."""
        return await self._load(ContentEntry, content_index_key(tenant, content_key))

    async def ids(self, tenant: str) -> list[str]:
        """Ids of the tenant's jobs in the index, oldest first."""
        keys = await (await self._records()).keys(f"{tenant}.")
        return sorted(key.partition(".")[2] for key in keys)

    async def tenants_and_ids(self) -> list[tuple[str, str]]:
        """All jobs in the index as (tenant, id), oldest first."""
        keys = await (await self._records()).keys("")
        pairs = [(tenant, job_id) for tenant, _, job_id in (key.partition(".") for key in keys)]
        return sorted(pairs, key=lambda pair: pair[1])

    async def pending(self) -> AsyncIterator[tuple[str, str, int]]:
        """(tenant, id, marked at) of every job that may still need work, from the object store; wall nanoseconds."""
        async for meta in self.blob.list("pending/"):
            tenant, _, job_id = meta.key.removeprefix("pending/").partition(".")
            yield tenant, job_id, meta.last_modified_ns

    # ---- changing ---------------------------------------------------------------------------------------------

    async def change(self, tenant: str, job_id: str, step: Callable[[JobRecord], JobRecord]) -> JobRecord:
        """Apply a pure transition by compare-and-set, again on each loss; returns the record as it then stands.

        What `step` raises goes through unchanged; raises Unavailable after `CAS_ATTEMPTS` losses.
        """
        bucket = await self._records()
        for _ in range(CAS_ATTEMPTS):
            entry = await bucket.get(record_key(tenant, job_id))
            if entry is None:
                await self._create(await self.from_store(tenant, job_id))
                continue
            before = JobRecord.model_validate_json(entry.value)
            after = step(before)
            if after == before:
                return before
            try:
                await bucket.update(record_key(tenant, job_id), after.encode(), revision=entry.revision)
                return after
            except PreconditionFailed:
                continue
        raise Unavailable(f"job {job_id} changed {CAS_ATTEMPTS} times while it was written")

    async def store_draft(self, tenant: str, job_id: str, draft: DraftManifest) -> JobRecord:
        """Write the draft's manifest and index it; a draft-only job ends with it."""
        await self.blob.put(job_key(tenant, job_id, "draft"), draft.encode())
        record = await self.change(tenant, job_id, lambda record: draft_stored(record, draft))
        if record.ended:
            await self.blob.delete(pending_key(tenant, job_id))
        return record

    async def finish(self, manifest: Manifest) -> tuple[JobRecord, bool]:
        """Give the job its one outcome. Returns the record and whether this manifest won (else an earlier one did)."""
        key = job_key(manifest.tenant, manifest.id, "manifest")
        won = await self.blob.put_if_absent(key, manifest.encode())
        if not won:
            standing = await self.manifest(manifest.tenant, manifest.id)
            if standing is None:
                raise InternalError(f"manifest of {manifest.id} exists and cannot be read")
            won = standing == manifest  # our own put, whose answer was lost
            manifest = standing
        record = await self.change(manifest.tenant, manifest.id, lambda record: apply_manifest(record, manifest))
        await self.blob.delete(pending_key(manifest.tenant, manifest.id))
        return record, won

    async def index_content(self, spec: JobSpec, entry: ContentEntry) -> None:
        """Remember the final of a content key; the first one stays."""
        await self.blob.put_if_absent(content_index_key(spec.tenant, spec.content_key), entry.encode())

    async def cancel(self, tenant: str, job_id: str) -> JobRecord:
        """End an unfinished job; cancelling twice is fine. Raises Conflict for one that ended otherwise."""
        record = await self.find(tenant, job_id)
        if not record.ended:
            now_ns = self.clock.now_ns()
            cancelled = Manifest(
                id=job_id, tenant=tenant, outcome="cancelled", epoch=record.epoch, finished_at_ns=now_ns
            )
            record, _ = await self.finish(cancelled)
            await self.bus.publish(cancel_subject(job_id), job_id.encode())
        if record.status != "cancelled":
            raise Conflict(f"video {job_id} is {record.status} and cannot be cancelled", param="id")
        return record

    async def ask_final(self, spec: JobSpec) -> JobRecord:
        """Queue the final of a draft-only job; `spec` is the new spec with its new decision. Raises Conflict."""
        record = await self.find(spec.tenant, spec.id)
        chosen = spec.decision.chosen()
        eta_s = (chosen.final_s or 0.0) if chosen else 0.0
        now_ns = self.clock.now_ns()
        upgrade(record, plan=spec.decision.plan, eta_s=eta_s, now_ns=now_ns)  # refuses before anything is written
        await self.blob.put(pending_key(spec.tenant, spec.id), b"")
        await self.blob.put_if_absent(job_key(spec.tenant, spec.id, "upgrade"), spec.encode())
        record = await self.change(
            spec.tenant,
            spec.id,
            lambda record: upgrade(record, plan=spec.decision.plan, eta_s=eta_s, now_ns=now_ns),
        )
        await self.enqueue(spec.tenant, spec.id, pool=spec.decision.pool, token="upgrade", trace=spec.trace)
        return record

    async def announce(self, event: JobEvent) -> None:
        """Publish an event, best effort: the record is what counts."""
        await self.bus.publish(event_subject(event.record.tenant, event.record.id), event.encode())

    # ---- parts ------------------------------------------------------------------------------------------------

    async def _create(self, record: JobRecord) -> None:
        try:
            await (await self._records()).create(record.key, record.encode())
        except PreconditionFailed:
            return  # someone indexed it first; theirs is as good

    async def _exists(self, key: str) -> bool:
        try:
            await self.blob.head(key)
        except NotFound:
            return False
        return True

    async def _load(self, cls: type[Stored], key: str) -> Stored | None:
        try:
            data = await self.blob.get(key)
        except NotFound:
            return None
        try:
            return cls.model_validate_json(data)
        except ValidationError as exc:
            raise InternalError(f"stored object {key} is not a {cls.__name__}: {exc.error_count()} errors") from exc
