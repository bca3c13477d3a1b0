"""The two places where an edge has jobs: the centre, and, while it is cut off, its own spool.

Decides by the pure rules in `spool/rules.py` which of them is asked. Without a spool it is the centre's job store and
nothing else. Owns nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from adaptivegen.blob.base import BlobStore
from adaptivegen.errors import AdaptiveGenError, DeadlineExceeded, NotFound, ResourceExhausted, Unavailable
from adaptivegen.jobs.events import JobEvent
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import Deleted, JobSpec, Manifest, Media
from adaptivegen.jobs.store import JobStore
from edge_node.spool.known import Known
from edge_node.spool.reach import Reach
from edge_node.spool.rules import RETRY_S, CutOff, is_cut, not_known_here, side_to_change, sides_to_read
from edge_node.spool.spool import Envelope, Spool

HANDOVER_WAIT_S = 5.0  # that a change waits for a job on its way
CUT_READ_S = 0.5  # that a broker may take for a record while it is known that something is cut
CHANGE_S, CUT_CHANGE_S = 15.0, 1.0  # that it may take at the centre, and while cut off


class Jobs(Protocol):
    """What those need who make drafts and tell of jobs: a `JobStore`, or `Sides`."""

    def of(self, tenant: str, job_id: str) -> JobStore:
        """The store that the job's draft and events go to."""
        ...

    async def find(self, tenant: str, job_id: str) -> JobRecord:
        """The record; raises NotFound."""
        ...

    async def announce(self, event: JobEvent) -> None:
        """Publish an event."""
        ...


@dataclass(frozen=True, slots=True)
class Partition:
    """What an edge with a spool has beyond the centre."""

    spool: Spool
    reach: Reach
    known: Known

    def cut(self) -> CutOff | None:
        """What is said while cut off; None while it is not."""
        if not self.reach.cut_off:
            return None
        try:
            self.spool.check_room(0)
        except ResourceExhausted:
            has_room = False
        else:
            has_room = True
        return CutOff(why=self.reach.why, for_s=self.reach.cut_s, jobs=len(self.spool), has_room=has_room)


class Sides:
    """Jobs by tenant and id, wherever they are."""

    def __init__(self, centre: JobStore, partition: Partition | None = None) -> None:
        self.centre = centre
        self._partition = partition

    @property
    def cut_off(self) -> bool:
        """Whether the centre is out of reach."""
        return self._partition is not None and self._partition.reach.cut_off

    def of(self, tenant: str, job_id: str) -> JobStore:
        """The store that the job's draft and events go to: the spool's for as long as the job is in it."""
        held = self._partition
        return held.spool.jobs if held and held.spool.state(tenant, job_id) != "absent" else self.centre

    async def announce(self, event: JobEvent) -> None:
        """Publish an event where the job is."""
        await self.of(event.record.tenant, event.record.id).announce(event)

    async def find(self, tenant: str, job_id: str) -> JobRecord:
        """The record. Raises NotFound, and Unavailable for what cannot be known while cut off."""
        held = self._partition
        if held is None:
            return await self.centre.find(tenant, job_id)
        sides = sides_to_read(held.spool.state(tenant, job_id), cut_off=held.reach.cut_off)
        if sides[0] == "centre":
            try:
                return await self._at_centre(held.reach, tenant, job_id)
            except AdaptiveGenError as exc:
                if held.spool.state(tenant, job_id) == "absent":
                    self._said(exc, job_id)
                    raise
                if isinstance(exc, Deleted) or not (isinstance(exc, NotFound) or is_cut(exc)):
                    raise
        try:
            return await held.spool.jobs.find(tenant, job_id)
        except NotFound:
            return await self._at_centre(held.reach, tenant, job_id)  # it was handed over meanwhile

    async def _at_centre(self, reach: Reach, tenant: str, job_id: str) -> JobRecord:
        """The record as the centre has it; as the store alone tells it, where the broker does not answer in time."""
        try:
            return await reach.call(self.centre.find(tenant, job_id), within_s=CUT_READ_S if reach.cut_off else None)
        except DeadlineExceeded:
            return await reach.call(self.centre.from_store(tenant, job_id))

    def _said(self, error: AdaptiveGenError, job_id: str) -> None:
        """Raise what is said instead of an error of the centre: what cannot be known while cut off is not missing."""
        if is_cut(error) or (isinstance(error, NotFound) and self.cut_off):
            raise not_known_here(job_id, error.code) from error

    async def ids(self, tenant: str) -> tuple[list[str], bool]:
        """The tenant's videos, oldest first, and whether these are not all: while cut off only those kept here."""
        held = self._partition
        if held is None:
            return await self.centre.index.ids(tenant), False
        here = held.spool.ids(tenant)
        if held.reach.cut_off:
            return here, True
        return sorted(
            {*here, *await self.centre.index.ids(tenant)}
        ), False  # a long list takes long, and has its own deadline

    @asynccontextmanager
    async def changing(self, tenant: str, job_id: str) -> AsyncIterator[JobStore]:
        """The store in which the job's outcome is to be changed; it is handed over before or after that, not meanwhile.

        Raises Unavailable while nobody can say, and inside for what the centre cannot be asked for.
        """
        held = self._partition
        if held is None:
            yield self.centre
            return
        if held.spool.state(tenant, job_id) == "absent":
            try:
                async with asyncio.timeout(CUT_CHANGE_S if held.reach.cut_off else CHANGE_S):
                    yield self.centre
            except TimeoutError as exc:
                raise not_known_here(job_id, DeadlineExceeded.code) from exc
            except AdaptiveGenError as exc:
                held.reach.failed(exc)
                self._said(exc, job_id)
                raise
            return
        lock = held.spool.lock(tenant, job_id)
        try:
            async with asyncio.timeout(HANDOVER_WAIT_S):
                await lock.acquire()
        except TimeoutError as exc:
            raise _on_its_way(job_id) from exc
        try:
            state = held.spool.state(tenant, job_id)
            side = side_to_change(state, cut_off=held.reach.cut_off)
            try:
                if state == "begun" and not await self._begun_there(held.reach, tenant, job_id):
                    side = "spool"
                yield held.spool.jobs if side == "spool" else self.centre
            except AdaptiveGenError as exc:
                if state == "begun" and is_cut(exc):
                    raise _on_its_way(job_id) from exc
                raise
        finally:
            lock.release()

    async def _begun_there(self, reach: Reach, tenant: str, job_id: str) -> bool:
        """Whether the centre has a job that it may have; raises Deleted."""
        try:
            await reach.call(self.centre.first_spec(tenant, job_id))
        except Deleted:
            raise
        except NotFound:
            return False
        return True

    async def cancel(self, tenant: str, job_id: str) -> JobRecord:
        """End an unfinished job. Raises as `changing`, and Conflict for one that ended otherwise."""
        async with self.changing(tenant, job_id) as jobs:
            held = self._partition
            begun = held is not None and held.spool.state(tenant, job_id) == "begun"
            if held is not None and begun and jobs is held.spool.jobs:
                await self._cancel_there(held.reach, await jobs.find(tenant, job_id))
            return await jobs.cancel(tenant, job_id)

    async def _cancel_there(self, reach: Reach, record: JobRecord) -> None:
        """Before a job is cancelled that waits here for another try: an earlier one, or another edge's of the same key,
        may still get it there. Whoever does is to find it ended. Raises Unavailable where it ended otherwise."""
        if record.ended:
            return
        now_ns = self.centre.clock.now_ns()
        asked = Manifest(id=record.id, tenant=record.tenant, outcome="cancelled", epoch=0, finished_at_ns=now_ns)
        if (await reach.call(self.centre.decide_outcome(asked))).outcome != "cancelled":
            raise _on_its_way(record.id)

    async def shelter(self, spec: JobSpec, error: AdaptiveGenError, *, note: str) -> JobStore:
        """Where the draft goes of a job that the centre has and cannot be reached for (`error`): the spool takes the
        job in, as one that was begun there. Raises `error` where there is no spool or no cut, ResourceExhausted."""
        held = self._partition
        if held is None or not is_cut(error):
            raise error
        held.reach.failed(error)
        envelope = Envelope(
            tenant=spec.tenant, id=spec.id, why=error.code, spooled_at_ns=self.centre.clock.now_ns(), begun=True
        )
        await held.spool.admit(envelope, needed_bytes=0)
        try:
            await held.spool.jobs.submit(spec.model_copy(update={"notes": (*spec.notes, note)}))
        finally:
            held.spool.settle(envelope)
        return held.spool.jobs

    def blob_of(self, media: Media) -> BlobStore:
        """The store that has a clip's bytes: this edge's own where it has them."""
        held = self._partition
        if held is not None and media.key in held.spool.blob.sizes:
            return held.spool.blob
        if held is not None and held.known.has(media.key):
            return held.known.blob
        return self.centre.blob

    def only_here(self, media: Media) -> bool:
        """Whether a clip's bytes are at this edge, and nobody else can get at them now."""
        held = self._partition
        if held is None:
            return False
        return media.key in held.spool.blob.sizes or (held.reach.cut_off and held.known.has(media.key))


def _on_its_way(job_id: str) -> Unavailable:
    return Unavailable(f"video {job_id} is being handed over", retry_after_s=RETRY_S)
