"""The index of jobs: one record a job in the `jobs` bucket, changed by compare-and-set only.

Owns nothing that matters: a record that is missing, or that this version cannot read, is rebuilt from the object store
(`rebuild`) and written where it belongs. Must not know queues or events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from adaptivegen.bus.base import KeyValue
from adaptivegen.errors import BrokerUnavailable, PreconditionFailed, Unavailable
from adaptivegen.jobs.record import JobRecord, decode_record, salvage
from adaptivegen.jobs.spec import Deleted, record_key
from adaptivegen.telemetry import get_logger

CAS_ATTEMPTS = 16
COMPLETE = "complete"  # set once every job of the store is indexed; lost with the bucket, and no job's key (no dot)


class JobIndex:
    """Records by tenant and id. `bucket` opens the bucket; `rebuild` tells the record from the object store alone, or
    raises NotFound."""

    def __init__(
        self, bucket: Callable[[], Awaitable[KeyValue]], *, rebuild: Callable[[str, str], Awaitable[JobRecord]]
    ) -> None:
        self._bucket = bucket
        self._rebuild = rebuild

    async def find(self, tenant: str, job_id: str) -> JobRecord:
        """The record; from the object store where the index has none or is out of reach. Raises NotFound.

        One that cannot be read is told as well as it can be and left as it is: reading puts nobody's newer record off.
        """
        try:
            bucket = await self._bucket()
            entry = await bucket.get(record_key(tenant, job_id))
            if entry is not None:
                return decode_record(entry.value) or salvage(await self._rebuild(tenant, job_id), entry.value)
            record, _ = await self._read(bucket, tenant, job_id)
        except BrokerUnavailable:
            return await self._rebuild(tenant, job_id)
        return record

    async def create(self, record: JobRecord, *, known: bool) -> JobRecord:
        """Index a job; returns the record that stands, an earlier one where the job has one. known: others may know of
        the job, and have deleted it since it was read. Raises Deleted."""
        bucket = await self._bucket()
        try:
            await bucket.create(record.key, record.encode())
        except PreconditionFailed:
            return await self.find(record.tenant, record.id)
        if known:
            await self._still_there(bucket, record.tenant, record.id)
        return record

    async def put_right(self, tenant: str, job_id: str) -> None:
        """Index a job that has no record, or one that cannot be read. Unlike `find`, which tells what the store says,
        it raises BrokerUnavailable; and NotFound, Deleted."""
        await self._read(await self._bucket(), tenant, job_id)

    async def forget(self, tenant: str, job_id: str) -> None:
        """Take the record of a deleted job away."""
        await (await self._bucket()).delete(record_key(tenant, job_id))

    async def _still_there(self, bucket: KeyValue, tenant: str, job_id: str) -> None:
        """After a record was made from the store: a deletion since then may have found none to take away."""
        try:
            await self._rebuild(tenant, job_id)
        except Deleted:
            await bucket.delete(record_key(tenant, job_id))
            raise

    async def change(self, tenant: str, job_id: str, step: Callable[[JobRecord], JobRecord]) -> JobRecord:
        """Apply a pure transition by compare-and-set, again on each loss; returns the record as it then stands.

        What `step` raises goes through unchanged; raises Unavailable after `CAS_ATTEMPTS` losses.
        """
        bucket = await self._bucket()
        for _ in range(CAS_ATTEMPTS):
            before, revision = await self._read(bucket, tenant, job_id)
            after = step(before)
            if after == before:
                return before
            try:
                await bucket.update(record_key(tenant, job_id), after.encode(), revision=revision)
                return after
            except PreconditionFailed:
                continue
        raise Unavailable(f"job {job_id} changed {CAS_ATTEMPTS} times while it was written")

    async def ids(self, tenant: str) -> list[str]:
        """Ids of the tenant's jobs, oldest first."""
        keys = await (await self._bucket()).keys(f"{tenant}.")
        return sorted(key.partition(".")[2] for key in keys)

    async def tenants_and_ids(self) -> list[tuple[str, str]]:
        """All jobs as (tenant, id), oldest first."""
        keys = await (await self._bucket()).keys("")
        pairs = [(tenant, job_id) for tenant, dot, job_id in (key.partition(".") for key in keys) if dot]
        return sorted(pairs, key=lambda pair: pair[1])

    async def complete(self) -> bool:
        """Whether every job of the store is listed: not after the broker lost its data, until someone indexed them."""
        return await (await self._bucket()).get(COMPLETE) is not None

    async def set_complete(self) -> None:
        """Say that every job of the store is listed."""
        await (await self._bucket()).put(COMPLETE, b"")

    async def _read(self, bucket: KeyValue, tenant: str, job_id: str) -> tuple[JobRecord, int]:
        """The record and its revision; one that is missing or unreadable is put right first."""
        key = record_key(tenant, job_id)
        for _ in range(CAS_ATTEMPTS):
            entry = await bucket.get(key)
            record = decode_record(entry.value) if entry is not None else None
            if record is not None and entry is not None:
                return record, entry.revision
            rebuilt = await self._rebuild(tenant, job_id)
            try:
                if entry is None:
                    revision = await bucket.create(key, rebuilt.encode())
                    await self._still_there(bucket, tenant, job_id)
                    return rebuilt, revision
                get_logger().warning("unreadable_record_rebuilt", job_id=job_id, tenant=tenant)
                rebuilt = salvage(rebuilt, entry.value)
                return rebuilt, await bucket.update(key, rebuilt.encode(), revision=entry.revision)
            except PreconditionFailed:
                continue  # someone else put it right
        raise Unavailable(f"the record of job {job_id} changed {CAS_ATTEMPTS} times while it was rebuilt")
